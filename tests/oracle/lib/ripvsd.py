"""The backend for ripvsd: a daemon of its own in a network namespace of its own.

A scenario's process enters a new network namespace, makes a TAP device for every
interface, which becomes a port of ripvsd's (net_tap), and opens a packet socket on
its kernel's end. Namespace, devices and daemon go when the process ends, however it
ends, so nothing has to be named or cleaned up.

Nothing is timed here. settle (channel.py) says when every injected frame has its
verdict and how many frames have been sent on each port; exactly those are read. The
daemon's clock is held and moved on by as much as a scenario sleeps (advance), so that
a loaded machine makes no difference; unless the clock is to be the system's.
"""
import ctypes
import errno
import fcntl
import os
import re
import select
import signal
import socket
import struct
import subprocess
import time

import channel

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
ETH_P_ALL, PACKET_OUTGOING = 3, 4
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_RCVBUFFORCE = 33
TUNSETIFF, TUNSETPERSIST = 0x400454ca, 0x400454cb
TAP_FLAGS = 0x0002 | 0x1000 | 0x0100     # IFF_TAP, IFF_NO_PI, IFF_MULTI_QUEUE, as net_tap has it
SIOCSIFMTU, LARGEST = 0x8922, 9200
PATIENCE = 120                    # seconds until something is called stuck
EAL = ["--no-huge", "-m", "128", "--no-shconf", "--no-telemetry", "--no-pci"]
libc = ctypes.CDLL(None, use_errno=True)


class Stuck(Exception):
    """The daemon or a command did not do what the step needs."""


def die_with_parent():
    """Have the kernel kill this process when the one that started it ends."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Ripvsd:
    """The backend (see replay.py). binaries: folder of ripvsd and ripvsadm; cli:
    the words that run an ipvsadm command line; workdir: a folder to write to;
    real_time: whether its clock goes by itself."""

    def __init__(self, binaries, workdir, workers=1, exact=False, cli=None,
                 real_time=False):
        self.ripvsd = os.path.join(binaries, "ripvsd")
        self.ripvsadm = os.path.join(binaries, "ripvsadm")
        self.cli = cli or [self.ripvsadm]
        self.workdir, self.workers, self.exact = workdir, workers, exact
        self.socket = os.path.join(workdir, "sock")
        self.log = os.path.join(workdir, "log")
        self.environment = dict(os.environ, RIPVS_SOCKET=self.socket, LC_ALL="C")
        self.ports, self.injected, self.taken = {}, {}, {}
        self.daemon = self.channel = None
        self.real_time, self.clock = real_time, time.monotonic() if real_time else 0

    # ---------------------------------------------------------- beginning and end

    def setup(self, plan):
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare (this needs root)")
        put("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")
        put("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
        for interface in plan["interfaces"]:
            if interface["mac"]:
                self.port(interface["name"])
        config = os.path.join(self.workdir, "ripvsd.toml")
        put(config, configuration(plan, self))
        with open(self.log, "w") as log:
            self.daemon = subprocess.Popen([self.ripvsd, "--config", config], stdout=log,
                                           stderr=log, stdin=subprocess.DEVNULL,
                                           preexec_fn=die_with_parent, env=self.environment)
        self.wait_for_socket()
        self.channel = channel.Channel(self.socket, PATIENCE)
        if self.real_time:
            self.clock = time.monotonic()
        self.settle()                                # it answers: its ports are as they will be
        for name, end in self.ports.items():         # what arrives may be longer than what leaves
            fcntl.ioctl(end, SIOCSIFMTU, struct.pack("16si", name.encode(), LARGEST))

    def port(self, name):
        """A TAP device: ripvsd opens it by net_tap, its kernel's end is ours. It is made
        beforehand, so that nothing is sent that no socket is there to receive. (Under
        net_af_packet the kernel would put IPv4 fragments together before ripvsd sees them.)"""
        device = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP_FLAGS))
        fcntl.ioctl(device, TUNSETPERSIST, 1)
        os.close(device)
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        end.bind((name, ETH_P_ALL))
        self.ports[name], self.injected[name], self.taken[name] = end, 0, 0

    def wait_for_socket(self):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.must_live()
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
                try:
                    door.connect(self.socket)
                    return
                except OSError:
                    time.sleep(0.01)
        raise Stuck("ripvsd does not listen on its socket\n" + self.last_words())

    def must_live(self):
        status = self.daemon.poll()
        if status is not None:
            raise Stuck("ripvsd ended with status %d\n%s" % (status, self.last_words()))

    def last_words(self):
        with open(self.log, errors="replace") as log:
            return "".join(log.readlines()[-30:])

    def finish(self):
        """End the daemon, which has to be alive and to end cleanly."""
        self.must_live()
        self.daemon.terminate()
        try:
            status = self.daemon.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Stuck("ripvsd does not end on SIGTERM\n" + self.last_words()) from None
        if status:
            raise Stuck("ripvsd ended with status %d on SIGTERM\n%s" % (status, self.last_words()))

    # ---------------------------------------------------------- steps

    def command(self, argv, stdin=""):
        try:
            return subprocess.run(argv, input=stdin, text=True, errors="replace",
                                  capture_output=True, env=self.environment, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise Stuck("%s does not end\n%s" % (argv, self.last_words())) from None

    def ipvsadm(self, args, stdin):
        done = self.command(self.cli + args, stdin)
        return done.returncode, done.stdout, done.stderr

    def sysctl(self, key, value):
        done = self.command([self.ripvsadm, "sysctl", "set", key, value])
        if done.returncode:
            error = errno.ENOENT if "there is no setting" in done.stderr else errno.EINVAL
            raise OSError(error, os.strerror(error), done.stderr)

    def time(self):
        return time.monotonic() if self.real_time else self.clock

    def sleep(self, seconds):
        """So much time passes, by the system's clock since the last sleep ended."""
        if self.real_time:
            self.clock = max(self.clock + seconds, time.monotonic())
            time.sleep(max(0, self.clock - time.monotonic()))
            return
        self.clock += seconds
        try:
            self.channel.advance(seconds)
        except OSError as error:
            self.must_live()
            raise Stuck("advance: %s\n%s" % (error, self.last_words())) from None

    def inject(self, interface, frame):
        self.ports[interface].send(frame)
        self.injected[interface] += 1

    def drain(self):
        frames = []
        for name, sent in self.settle().items():
            frames += [(name, self.receive(name)) for _ in range(sent - self.taken[name])]
            self.taken[name] = sent
        return frames

    def settle(self):
        """How many frames each port has sent, once all injected ones have their verdict."""
        try:
            complete, ports = self.channel.settle(self.injected, PATIENCE // 2)
        except OSError as error:
            self.must_live()
            raise Stuck("settle: %s\n%s" % (error, self.last_words())) from None
        self.must_live()
        counts = {name: ports[name] for name in self.ports if name in ports}
        if not complete or len(counts) < len(self.ports):
            raise Stuck("settle: not all is done: %s (received, sent), %s injected\n%s" % (
                ports, self.injected, self.last_words()))
        received = {name: count[0] for name, count in counts.items()}
        if received != self.injected:
            raise Stuck("settle: %s were injected, %s received" % (self.injected, received))
        return {name: count[1] for name, count in counts.items()}

    def receive(self, name):
        end = self.ports[name]
        deadline = time.monotonic() + PATIENCE
        while True:
            if not select.select([end], [], [], max(0, deadline - time.monotonic()))[0]:
                lost = end.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
                raise Stuck("%s: a frame that was sent did not arrive (%s)" % (name, lost.hex()))
            try:
                frame, origin = end.recvfrom(65536)
            except OSError as error:
                if error.errno == errno.ENETDOWN:    # ripvsd brought it up since
                    continue
                raise
            if origin[2] != PACKET_OUTGOING:
                return frame


def put(path, text):
    with open(path, "w") as file:
        file.write(text)


# ---------------------------------------------------------------- configuration

def configuration(plan, backend):
    """The TOML that makes ripvsd the load balancer of plan."""
    ftp = [module for module in plan["modules"] if module["name"] == "ip_vs_ftp"]
    unknown = [module["name"] for module in plan["modules"] if module not in ftp]
    if unknown:
        raise Stuck("no setting stands for module " + " ".join(unknown))
    text = [toml(None, workers=backend.workers, socket=backend.socket,
                 connections=65536, icmp_ratelimit=0,
                 scheduling="exact" if backend.exact else None,
                 clock=None if backend.real_time else "held",
                 ftp_ports=ftp_ports(ftp[0]["parameters"]) if ftp else []),
            toml("[eal]", args=EAL)]
    for number, interface in enumerate(plan["interfaces"]):
        name, addresses = interface["name"], interface["addresses"]
        if interface["mac"]:
            device = "net_tap%d,iface=%s" % (number, name)
            text.append(toml("[[port]]", name=name, device=device, mac=interface["mac"],
                             mtu=interface["mtu"], addresses=addresses))
        elif name == "lo":
            text.append(toml("[loopback]", addresses=addresses))
        else:
            raise Stuck("interface %s has no MAC address" % name)
    for route in plan["routes"]:
        mtu = int(route["mtu"]) if "mtu" in route else None
        text.append(toml("[[route]]", prefix=prefix(route), via=route.get("via"),
                         dev=route.get("dev"), mtu=mtu, **{"from": route.get("from")}))
    for neighbour in plan["neighbours"]:
        text.append(toml("[[neighbour]]", interface=neighbour["if"], address=neighbour["ip"],
                         mac=neighbour["mac"]))
    for mark in plan["marks"]:
        ports = [str(mark["port"])] if mark["port"] else None
        text.append(toml("[[mark]]", mark=mark["mark"], protocol=mark["proto"],
                         destination=mark["dst"], destination_ports=ports,
                         divert=True if mark["mark"] in plan["diverts"] else None))
    return "\n".join(text)


def ftp_ports(parameters):
    """The ports of the helper: `ports=21,2121`, or nothing, which is 21."""
    name, _, ports = (parameters or "ports=21").partition("=")
    if name != "ports":
        raise Stuck("no setting stands for ip_vs_ftp " + parameters)
    return [int(port) for port in ports.split(",")]


def prefix(route):
    if route["prefix"] != "default":
        return route["prefix"]
    return "::/0" if ":" in route.get("via", "") else "0.0.0.0/0"


def toml(heading, **entries):
    """A TOML table; entries that are None are left out."""
    def value(entry):
        if isinstance(entry, bool):
            return "true" if entry else "false"
        if isinstance(entry, list):
            return "[%s]" % ", ".join(value(item) for item in entry)
        return str(entry) if isinstance(entry, int) else '"%s"' % entry
    lines = ["%s = %s" % (key, value(entry)) for key, entry in entries.items()
             if entry is not None]
    return "\n".join(([heading] if heading else []) + lines) + "\n"
