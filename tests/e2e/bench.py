"""A ripvsd on devices of any kind, in a network namespace of this process's own, for devices.py.

An end is the far side of one of its devices: a kernel interface with a packet socket of ours on it. What ripvsd's backend
for the scenarios (tests/oracle/lib/ripvsd.py) knows about starting, settling and ending is used here too; VLAN tags, ARP,
other devices than net_tap, and configurations of all shapes come on top.
"""
import ctypes
import ipaddress
import json
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../oracle/lib"))
import channel  # noqa: E402
import packet  # noqa: E402
import ripvsd  # noqa: E402
from ripvsd import PATIENCE, Stuck, put, toml  # noqa: E402,F401

PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 8, 1 << 4
BROADCAST = "ff:ff:ff:ff:ff:ff"
EAL = ["--no-huge", "-m", "512", "--no-shconf", "--no-telemetry", "--no-pci"]


def enter():
    """A network namespace of this process's own, without the kernel's own talk on its links."""
    if ripvsd.libc.unshare(ripvsd.CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare (this needs root)")
    put("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")
    put("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")


def ip(line):
    subprocess.run(["ip"] + line.split(), check=True)


# ---------------------------------------------------------------- frames

def raw_mac(text):
    return bytes.fromhex(text.replace(":", ""))


def frame(source, target, body, vlan=None, ethertype=None):
    """An Ethernet frame with a body of bytes, or an IP packet by its description."""
    if isinstance(body, str):
        body = packet.build(body, 1)
    if ethertype is None:
        ethertype = 0x86dd if body[0] >> 4 == 6 else 0x800
    tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
    return raw_mac(target) + raw_mac(source) + tag + struct.pack("!H", ethertype) + body


def arp(operation, source, source_ip, target_ip, target="00:00:00:00:00:00", to=None, vlan=None):
    """operation: "who-has" or "is-at"; target, to: MAC addresses asked for and sent to."""
    code = {"who-has": 1, "is-at": 2}[operation]
    body = struct.pack("!HHBBH", 1, 0x800, 6, 4, code) + raw_mac(source)
    body += ipaddress.ip_address(source_ip).packed + raw_mac(target)
    body += ipaddress.ip_address(target_ip).packed
    return frame(source, to or (BROADCAST if code == 1 else target), body, vlan, 0x806)


def describe(data):
    """A frame for people: `SOURCE > TARGET [vlan N] PACKET`."""
    text = "%s > %s " % (packet.mac(data[6:12]), packet.mac(data[:6]))
    kind, at = struct.unpack("!H", data[12:14])[0], 14
    if kind == 0x8100:
        tag, kind = struct.unpack("!HH", data[14:18])
        text, at = text + "vlan %d " % (tag & 0xfff), 18
    if kind == 0x806:
        body = data[at:at + 28]
        operation = {1: "who-has", 2: "is-at"}.get(body[7], "?")
        asked, told = (ipaddress.ip_address(body[n:n + 4]) for n in (24, 14))
        return text + "arp %s %s tell %s at %s" % (operation, asked, told, packet.mac(body[8:14]))
    if kind in (0x800, 0x86dd):
        return text + packet.decode(data[at:])
    return text + "type 0x%04x" % kind


def is_announcement(data):
    """Gratuitous ARP, or a neighbour advertisement nobody asked for."""
    at = 16 if data[12:14] == b"\x81\x00" else 12
    if data[at:at + 2] == b"\x08\x06":
        return data[at + 16:at + 20] == data[at + 26:at + 30]
    return data[at:at + 2] == b"\x86\xdd" and data[at + 8] == 58 and data[at + 42] == 136 \
        and not data[at + 46] & 0x40


# ---------------------------------------------------------------- the daemon

class Bench(ripvsd.Ripvsd):
    """A ripvsd with its ends. The name of an end is that of its port, unless said otherwise."""

    def __init__(self, workers=1):
        self.folder = tempfile.TemporaryDirectory(prefix="ripvs-")
        super().__init__(os.environ.get("RIPVS_BIN", "target/debug"), self.folder.name, workers)
        self.announced, self.devices = [], 0
        self.ends, self.active = {}, {}              # end: port; port: the end that is read

    # ------------------------------------------------------ devices: each returns what DPDK calls it

    def tap(self, name, port=None):
        self.port(name)
        return self.end_of(name, port or name, "net_tap%d,iface=%s" % (self.number(), name))

    def veth(self, name, device, mtu=1500, more="", index=None):
        """The end is a veth interface; its peer is what the device (af_packet, af_xdp) takes. index: a number for the peer,
        where another process has af_packet ports here: the driver makes its groups' names of process and interface."""
        number = "" if index is None else "index %d" % index
        ip("link add %s.d %s mtu %d type veth peer name %s mtu %d" % (name, number, mtu, name, mtu))
        for interface in name, name + ".d":
            ip("link set %s up" % interface)
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        end.setsockopt(socket.SOL_SOCKET, ripvsd.SO_RCVBUFFORCE, 1 << 24)
        end.bind((name, ripvsd.ETH_P_ALL))
        self.ports[name] = end
        return self.end_of(name, name, "%s%d,iface=%s.d%s" % (device, self.number(), name, more))

    def memif(self, role, path):
        """A port without an end of ours: another ripvsd has it."""
        return "net_memif%d,id=1,role=%s,socket=%s,socket-abstract=no" % (
            self.number(), role, path)

    def number(self):
        self.devices += 1
        return self.devices - 1

    def end_of(self, name, port, device):
        self.ports[name].setsockopt(ripvsd.SOL_PACKET, PACKET_AUXDATA, 1)
        self.ends[name] = port
        self.active.setdefault(port, name)
        self.injected[port] = self.taken[port] = 0
        return device

    # ------------------------------------------------------ beginning

    def start(self, *tables, **entries):
        """Start ripvsd with this configuration: TOML tables, and keys that go before them."""
        entries = dict({"workers": self.workers, "socket": self.socket, "connections": 65536,
                        "icmp_ratelimit": 0}, **entries)
        config = os.path.join(self.workdir, "ripvsd.toml")
        put(config, "\n".join([toml(None, **entries), toml("[eal]", args=EAL)] + list(tables)))
        with open(self.log, "w") as log:
            self.daemon = subprocess.Popen([self.ripvsd, "--config", config], stdout=log,
                                           stderr=log, stdin=subprocess.DEVNULL,
                                           preexec_fn=ripvsd.die_with_parent, env=self.environment)
        self.wait_for_socket()
        self.channel = channel.Channel(self.socket, PATIENCE)
        try:
            self.settle()                            # it answers: its devices are up
        except OSError as error:
            self.daemon.wait(PATIENCE)
            raise Stuck("ripvsd did not start: %s\n%s" % (error, self.last_words())) from None
        for end in self.ports.values():              # what was said of them while they were down
            end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def adm(self, line):
        """Run a command line of ripvsadm, which must be accepted. Returns what it says."""
        done = self.command([self.ripvsadm] + line.split())
        if done.returncode:
            raise Stuck("ripvsadm %s: %s" % (line, done.stderr))
        return done.stdout

    def json(self, subcommand):
        return json.loads(self.adm(subcommand + " --json"))

    # ------------------------------------------------------ packets

    def send(self, end, *frames):
        for one in frames:
            self.ports[end].send(one)
            self.injected[self.ends[end]] += 1

    def until(self, true, what):
        """Wait for a state that nothing reports: the kernel tells of links in its own time."""
        deadline = time.monotonic() + PATIENCE
        while not true():
            self.must_live()
            if time.monotonic() > deadline:
                raise Stuck("not so after %d s: %s\n%s" % (PATIENCE, what, self.last_words()))
            time.sleep(0.01)

    def linked(self, *names):
        """Wait until these ports have a link."""
        for name in names:
            self.until(lambda: any(one["name"] == name and one["link"] for one in self.json("port")),
                       name + " has a link")

    def settle(self):
        """How many frames each port has sent, once all injected ones have their verdict."""
        wanted = {port: self.injected[port] for port in self.active}
        complete, ports = self.channel.settle(wanted, PATIENCE // 2)
        self.must_live()
        if not complete:
            raise Stuck("settle: %s (received, sent), %s injected\n%s" % (
                ports, wanted, self.last_words()))
        return {name: sent for name, (_, sent) in ports.items()}

    def drain(self):
        """What has left since the last look, as (end, description); announcements are put aside."""
        found, sent = [], self.settle()
        for port, end in self.active.items():
            for _ in range(sent[port] - self.taken[port]):
                self.keep(found, end)
        return found

    def keep(self, found, end):
        data = self.receive(end)
        self.taken[self.ends[end]] += 1
        if is_announcement(data):
            self.announced.append((end, describe(data)))
        else:
            found.append((end, describe(data)))

    def wait_for(self, end, words):
        """Read at an end until a frame's description has these words; others before it are not looked at."""
        found = []
        while not (found and words in found[-1][1]):
            self.keep(found, end)
        return found[-1][1]

    def receive(self, end):
        """The next frame at an end, with its VLAN tag, which the kernel takes out."""
        deadline = time.monotonic() + PATIENCE
        while True:
            left = max(0, deadline - time.monotonic())
            if not select.select([self.ports[end]], [], [], left)[0]:
                raise Stuck("%s: a frame that has to come did not\n%s" % (end, self.last_words()))
            try:
                data, extra, _, origin = self.ports[end].recvmsg(65536, 64)
            except OSError as error:
                if error.errno == ripvsd.errno.ENETDOWN:
                    continue
                raise
            if origin[2] == ripvsd.PACKET_OUTGOING:
                continue
            for _, kind, value in extra:
                status, _, _, _, _, tag, ethertype = struct.unpack("=IIIHHHH", value[:20])
                if kind == PACKET_AUXDATA and status & TP_STATUS_VLAN_VALID:
                    data = data[:12] + struct.pack("!HH", ethertype or 0x8100, tag) + data[12:]
            return data

    def expect(self, *wanted):
        """What leaves now is this and no more: (end, how the description begins)."""
        found = self.drain()
        fits = len(found) == len(wanted) and all(
            end == at and text.startswith(start) and "BAD" not in text
            for (at, start), (end, text) in zip(wanted, found))
        if not fits:
            raise Stuck("expected\n  %s\nfound\n  %s\ndrops: %s" % (
                "\n  ".join("%s %s" % one for one in wanted),
                "\n  ".join("%s %s" % one for one in found), self.adm("drops")))
