#!/usr/bin/env python3
"""ripvsd on the devices that nothing else runs it on, frame by frame.

usage: devices.py CHECK [WORKERS]
CHECK is the name of a function below without `check_`. RIPVS_BIN is the folder of the programs. Needs root; everything is
in a network namespace that ends with this process. Nothing is timed: see bench.py.
"""
import ctypes
import os
import socket
import sys

sys.dont_write_bytecode = True
from bench import BROADCAST, Bench, Stuck, arp, enter, frame, ip, toml  # noqa: E402
from bench import ripvsd  # noqa: E402

VIP, VIP6 = "192.0.2.100", "2001:db8:18::100"
CLIENT, CLIENT_MAC = "198.18.0.1", "02:00:00:00:01:01"
SERVER, SERVER_MAC = "10.0.0.11", "02:00:00:00:02:11"
MAC0, MAC1 = "02:00:00:00:00:01", "02:00:00:00:00:02"


def network(front="eth0", back="eth1", **known):
    """The balancer between clients and servers, by the interfaces to them."""
    tables = [toml("[loopback]", addresses=[VIP + "/32"])]
    for interface, address, mac in ((front, CLIENT, CLIENT_MAC), (back, SERVER, SERVER_MAC)):
        tables.append(toml("[[neighbour]]", interface=interface, address=address, mac=mac))
    return tables


def port(name, device, **entries):
    return toml("[[port]]", name=name, device=device, **entries)


FRONT, BACK = ["198.18.0.254/24"], ["10.0.0.254/24"]


def nat(bench, protocol="u"):
    bench.adm("-A -%s %s:80 -s rr" % (protocol, VIP))
    bench.adm("-a -%s %s:80 -r %s:8080 -m" % (protocol, VIP, SERVER))


def back_and_forth(bench, front="eth0", back="eth1", macs=(MAC0, MAC1), cport=1000, length=4,
                   tags=(None, None)):
    """A datagram by NAT to the server, and its answer to the client."""
    words = tuple("" if tag is None else "vlan %d " % tag for tag in tags)
    there = "udp %s:%d > " % (CLIENT, cport)
    bench.send(front, frame(CLIENT_MAC, macs[0], "%s%s:80 len %d" % (there, VIP, length), tags[0]))
    bench.expect((back, "%s > %s %s%s%s:8080 len %d" % (
        macs[1], SERVER_MAC, words[1], there, SERVER, length)))
    answer = "%s:%d len %d" % (CLIENT, cport, length)
    bench.send(back, frame(SERVER_MAC, macs[1], "udp %s:8080 > %s" % (SERVER, answer), tags[1]))
    bench.expect((front, "%s > %s %sudp %s:80 > %s" % (
        macs[0], CLIENT_MAC, words[0], VIP, answer)))


def drops(bench):
    """What was dropped, by reason."""
    return {drop["name"]: drop["count"] for drop in bench.json("drops")["dropped"]}


def check_vlan(workers):
    """Clients and servers in two VLANs of one port: tags in and out, ARP in a VLAN, DR and NAT, counters."""
    bench = Bench(workers)
    bench.start(port("eth0", bench.tap("eth0"), mac=MAC0),
                toml("[[vlan]]", name="front", on="eth0", id=100, addresses=FRONT),
                toml("[[vlan]]", name="back", on="eth0", id=200, addresses=BACK),
                *network("front", "back"))
    bench.adm("-A -u %s:80 -s rr" % VIP)
    bench.adm("-a -u %s:80 -r %s -g" % (VIP, SERVER))
    bench.adm("-A -t %s:80 -s rr" % VIP)
    bench.adm("-a -t %s:80 -r %s:8080 -m" % (VIP, SERVER))
    bench.drain()
    before = {one["name"]: one for one in bench.json("port")}
    bench.send("eth0", frame(CLIENT_MAC, MAC0, "udp %s:1000 > %s:80 len 4" % (CLIENT, VIP), 100))
    bench.expect(("eth0", "%s > %s vlan 200 udp %s:1000 > %s:80 len 4" % (
        MAC0, SERVER_MAC, CLIENT, VIP)))
    bench.send("eth0", frame(CLIENT_MAC, MAC0, "tcp %s:1000 > %s:80 S" % (CLIENT, VIP), 100))
    bench.expect(("eth0", "%s > %s vlan 200 tcp %s:1000 > %s:8080 S" % (
        MAC0, SERVER_MAC, CLIENT, SERVER)))
    bench.send("eth0", frame(SERVER_MAC, MAC0, "tcp %s:8080 > %s:1000 SA ack 1001" % (
        SERVER, CLIENT), 200))
    bench.expect(("eth0", "%s > %s vlan 100 tcp %s:80 > %s:1000 SA" % (
        MAC0, CLIENT_MAC, VIP, CLIENT)))
    bench.send("eth0", arp("who-has", CLIENT_MAC, CLIENT, VIP, vlan=100))
    bench.expect(("eth0", "%s > %s vlan 100 arp is-at %s tell %s at %s" % (
        MAC0, CLIENT_MAC, CLIENT, VIP, MAC0)))
    after = {one["name"]: one for one in bench.json("port")}
    for name, received, sent in ("front", 3, 2), ("back", 1, 2), ("eth0", 4, 4):
        for key, wanted in ("rx_packets", received), ("tx_packets", sent):
            grown = after[name][key] - before[name][key]
            # Announcements go out in their own time.
            if grown != wanted and not (key == "tx_packets" and grown > wanted):
                raise Stuck("%s %s: %d, not %d" % (name, key, grown, wanted))
    # A VLAN that is not there, and no tag where the port itself has no address.
    bench.send("eth0", frame(CLIENT_MAC, MAC0, "udp %s:1 > %s:80" % (CLIENT, VIP), 300))
    bench.expect()
    if not drops(bench).get("unknown-vlan"):
        raise Stuck("a frame of an unknown VLAN was not counted: %s" % drops(bench))
    bench.finish()


def check_bond(workers):
    """A bond of two taps, active-backup, carries NAT both ways by its first member, and has a companion."""
    bench = Bench(workers)
    members = [port(name, bench.tap(name, "bond0")) for name in ("tapa", "tapb")]
    bench.start(*members, port("eth1", bench.tap("eth1"), mac=MAC1, addresses=BACK),
                toml("[[bond]]", name="bond0", members=["tapa", "tapb"], mode="active-backup",
                     mac=MAC0, addresses=FRONT, companion="host0"),
                *network("bond0"))
    nat(bench)
    bench.linked("bond0")
    bench.drain()
    for cport in 1000, 1001:
        back_and_forth(bench, "tapa", cport=cport)
    ip("address add %s dev host0" % FRONT[0])
    ip("link set host0 up")
    host_answers(bench, "tapa", FRONT[0].split("/")[0], CLIENT)
    bench.finish()


def host_answers(bench, end, own, me):
    """The kernel behind the companion takes a TCP connection at the port's own address, from a client on the end. Returns
    its sockets: closing them makes packets."""
    door = socket.create_server((own, 80))
    door.settimeout(ripvsd.PATIENCE)
    segment = "tcp %s:5000 > %s:80 " % (me, own)
    bench.send(end, frame(CLIENT_MAC, MAC0, segment + "S seq 1000"))
    # The kernel asks for the client itself, by way of ripvsd, and takes the answer.
    bench.wait_for(end, "arp who-has %s tell %s at %s" % (me, own, MAC0))
    bench.send(end, arp("is-at", CLIENT_MAC, me, own, MAC0))
    answer = bench.wait_for(end, "tcp %s:80 > %s:5000 SA" % (own, me)).split()
    sequence = int(answer[answer.index("seq") + 1]) + 1
    bench.send(end, frame(CLIENT_MAC, MAC0, segment + "PA seq 1001 ack %d data \"GET /\"" % sequence))
    held, (peer, _) = door.accept()
    held.settimeout(ripvsd.PATIENCE)
    if (peer, held.recv(100)) != (me, b"GET /"):
        raise Stuck("what the host was sent did not arrive")
    held.send(b"hello")
    bench.wait_for(end, "tcp %s:80 > %s:5000 PA seq %d ack 1006" % (own, me, sequence))
    return door, held


def check_companion(workers):
    """The host behind a port: its kernel does ARP and answers TCP at the port's address, while the VIP's packets are balanced."""
    bench = Bench(workers)
    bench.start(port("eth0", bench.tap("eth0"), mac=MAC0, addresses=FRONT, companion="host0"),
                port("eth1", bench.tap("eth1"), mac=MAC1, addresses=BACK), *network())
    nat(bench)
    ip("address add %s dev host0" % FRONT[0])
    ip("link set host0 up")
    own, me = FRONT[0].split("/")[0], CLIENT
    # Echo is ripvsd's own to answer, here as without a companion.
    bench.send("eth0", frame(CLIENT_MAC, MAC0, "icmp %s > %s echo echoid 9 seq 3 len 20" % (me, own)))
    bench.wait_for("eth0", "%s > %s icmp %s > %s echo-reply code 0 echoid 9 seq 3 data 20" % (
        MAC0, CLIENT_MAC, own, me))
    back_and_forth(bench)

    _open = host_answers(bench, "eth0", own, me)
    back_and_forth(bench, cport=1001)
    bench.finish()


def check_jumbo(workers):
    """Frames of 9,000 bytes over af_packet: NAT both ways, DR, and one too long for the way out."""
    bench = Bench(workers)
    bench.start(port("eth0", bench.veth("eth0", "net_af_packet", 9000), mac=MAC0, mtu=9000,
                     addresses=FRONT),
                port("eth1", bench.veth("eth1", "net_af_packet", 9000), mac=MAC1, mtu=9000,
                     addresses=BACK), *network())
    nat(bench)
    bench.adm("-A -u %s:81 -s rr" % VIP)
    bench.adm("-a -u %s:81 -r %s -g" % (VIP, SERVER))
    for length in 9000 - 28, 4, 5000:
        back_and_forth(bench, cport=1000 + length, length=length)
        bench.send("eth0", frame(CLIENT_MAC, MAC0, "udp %s:1 > %s:81 len %d" % (CLIENT, VIP, length)))
        bench.expect(("eth1", "%s > %s udp %s:1 > %s:81 len %d" % (
            MAC1, SERVER_MAC, CLIENT, VIP, length)))
    bench.adm("port set eth1 mtu 1500")
    bench.send("eth0", frame(CLIENT_MAC, MAC0, "udp %s:1 > %s:81 len 3000 df" % (CLIENT, VIP)))
    bench.expect(("eth0", "%s > %s icmp %s > %s unreach code 4 mtu 1500" % (
        MAC0, CLIENT_MAC, VIP, CLIENT)))
    bench.finish()


def check_af_packet(workers):
    """More workers than queues: both ways NAT over one queue each, for clients whose connections each worker owns."""
    bench = Bench(workers)
    bench.start(port("eth0", bench.veth("eth0", "net_af_packet"), mac=MAC0, addresses=FRONT),
                port("eth1", bench.veth("eth1", "net_af_packet"), mac=MAC1, addresses=BACK),
                *network())
    nat(bench)
    for one in bench.json("port"):
        if one["name"] != "lo" and (one["rx_queues"], one["tx_queues"]) != (1, 1):
            raise Stuck("not one queue: %s" % one)
    for cport in range(1000, 1030):
        back_and_forth(bench, cport=cport)
    owned = [one["conns"] for one in bench.json("workers")]
    if sum(owned) != 30 or not all(owned):
        raise Stuck("not every worker owns connections: %s" % owned)
    bench.finish()


def check_af_xdp(workers):
    """NAT both ways over AF_XDP sockets, in copy mode on veth."""
    if not bpf_allowed():
        print("skipped: the kernel does not let this process load BPF programs")
        return
    bench = Bench(workers)
    more = ",start_queue=0,queue_count=1,force_copy=1"
    devices = [bench.veth(name, "net_af_xdp", more=more) for name in ("eth0", "eth1")]
    # The driver cannot change an address: that of the kernel's interface is the port's.
    for name, mac in ("eth0", MAC0), ("eth1", MAC1):
        ip("link set %s.d address %s" % (name, mac))
    bench.start(port("eth0", devices[0], addresses=FRONT), port("eth1", devices[1], addresses=BACK),
                *network())
    nat(bench)
    for number, length in enumerate((4, 1472, 0, 777)):
        back_and_forth(bench, cport=1000 + number, length=length)
    bench.finish()


def bpf_allowed():
    """Whether bpf(BPF_MAP_CREATE) of an array with one entry succeeds."""
    call = {"x86_64": 321, "aarch64": 280}.get(os.uname().machine)
    if call is None:
        return False
    attributes = (ctypes.c_uint32 * 32)(2, 4, 4, 1)
    fd = ripvsd.libc.syscall(call, 0, ctypes.byref(attributes), ctypes.sizeof(attributes))
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def check_memif(workers):
    """Two ripvsd and a memif link of 9,000 bytes between them: one balances, the other one routes."""
    first, second = Bench(workers), Bench(workers)
    path = os.path.join(first.workdir, "memif")
    first.start(port("eth0", first.veth("eth0", "net_af_packet", 9000), mac=MAC0, mtu=9000,
                     addresses=FRONT),
                port("m0", first.memif("server", path), mtu=9000,
                     addresses=["10.7.0.1/24"]),
                toml("[loopback]", addresses=[VIP + "/32"]),
                toml("[[route]]", prefix="10.0.0.0/24", via="10.7.0.2"),
                toml("[[neighbour]]", interface="eth0", address=CLIENT, mac=CLIENT_MAC))
    far = second.veth("eth1", "net_af_packet", 9000, index=1 << 14)
    second.start(port("eth1", far, mac=MAC1, mtu=9000,
                      addresses=BACK),
                 port("m1", second.memif("client", path), mtu=9000,
                      addresses=["10.7.0.2/24"]),
                 toml("[[route]]", prefix="default", via="10.7.0.1"),
                 toml("[[neighbour]]", interface="eth1", address=SERVER, mac=SERVER_MAC))
    nat(first)
    # They find each other by ARP over the link; the first question may go before the other end is there.
    for cport, length in (1000, 4), (1001, 9000 - 28), (1002, 5000):
        there, answer = "udp %s:%d > " % (CLIENT, cport), "%s:%d len %d" % (CLIENT, cport, length)
        first.send("eth0", frame(CLIENT_MAC, MAC0, "%s%s:80 len %d" % (there, VIP, length)))
        second.wait_for("eth1", "%s > %s %s%s:8080 len %d ttl 62" % (
            MAC1, SERVER_MAC, there, SERVER, length))
        second.send("eth1", frame(SERVER_MAC, MAC1, "udp %s:8080 > %s" % (SERVER, answer)))
        first.wait_for("eth0", "%s > %s udp %s:80 > %s" % (MAC0, CLIENT_MAC, VIP, answer))
    first.finish()
    second.finish()


def check_neighbours(workers):
    """One who answers gets what waited, one who doesn't costs its packets and an ICMP error, one who moves is followed."""
    bench = Bench(workers)
    bench.start(port("eth0", bench.tap("eth0"), mac=MAC0, addresses=FRONT),
                port("eth1", bench.tap("eth1"), mac=MAC1, addresses=BACK), *network())
    bench.drain()
    for last, number in (12, 82), (13, 83):
        bench.adm("-A -u %s:%d -s rr" % (VIP, number))
        bench.adm("-a -u %s:%d -r 10.0.0.%d:8080 -m" % (VIP, number, last))

    def client(cport, number):
        return frame(CLIENT_MAC, MAC0, "udp %s:%d > %s:%d len 4" % (CLIENT, cport, VIP, number))

    def served(mac, cport, last):
        return "eth1", "%s > %s udp %s:%d > 10.0.0.%d:8080 len 4" % (MAC1, mac, CLIENT, cport, last)

    def question(last):
        return "%s > %s arp who-has 10.0.0.%d tell 10.0.0.254 at %s" % (MAC1, BROADCAST, last, MAC1)

    moved, there = "02:00:00:00:02:22", "02:00:00:00:02:12"
    # Three wait, the oldest gives way (one client, so that one worker has them all).
    bench.send("eth0", *[client(1000, 82)] * 4)
    bench.expect(("eth1", question(12)))
    dropped = drops(bench).get("neigh-queue-full")
    if dropped != 1:
        raise Stuck("%s dropped for a full queue, not 1" % dropped)
    bench.send("eth1", arp("is-at", there, "10.0.0.12", "10.0.0.254", MAC1))
    bench.expect(*[served(there, 1000, 12)] * 3)
    # It moves, and says so.
    bench.send("eth1", arp("who-has", moved, "10.0.0.12", "10.0.0.12"))
    bench.expect()
    bench.send("eth0", client(1000, 82), client(1001, 82))
    found = sorted(bench.drain())
    wanted = sorted([served(moved, 1000, 12), served(moved, 1001, 12)])
    if [text.startswith(start) for (_, text), (_, start) in zip(found, wanted)] != [True, True]:
        raise Stuck("a neighbour that moved: %s, not %s" % (found, wanted))
    # Three questions, then the sender hears of it.
    bench.send("eth0", client(1002, 83))
    for _ in range(3):
        bench.wait_for("eth1", question(13))
    error = bench.wait_for("eth0", "unreach code 1")
    quoted = "{ udp %s:1002 > " % CLIENT
    if not error.startswith("%s > %s icmp " % (MAC0, CLIENT_MAC)) or quoted not in error:
        raise Stuck("the host is unreachable: %s" % error)
    bench.expect()
    if drops(bench).get("neigh-failed") != 1:
        raise Stuck("a packet lost for want of its neighbour was not counted: %s" % drops(bench))
    bench.finish()


def check_vip(workers):
    """ARP, neighbour discovery and echo for virtual addresses; a new address is announced three times."""
    bench = Bench(workers)
    bench.start(port("eth0", bench.tap("eth0"), mac=MAC0, addresses=FRONT + [VIP6 + "/64"]),
                port("eth1", bench.tap("eth1"), mac=MAC1, addresses=BACK), *network())
    bench.drain()
    bench.send("eth0", arp("who-has", CLIENT_MAC, CLIENT, VIP))
    bench.expect(("eth0", "%s > %s arp is-at %s tell %s at %s" % (MAC0, CLIENT_MAC, CLIENT, VIP, MAC0)))
    bench.send("eth0", arp("who-has", CLIENT_MAC, CLIENT, "198.18.0.77"))
    bench.expect()
    bench.send("eth0", frame(CLIENT_MAC, MAC0, "icmp %s > %s echo echoid 5 seq 6 len 30" % (CLIENT, VIP)))
    bench.expect(("eth0", "%s > %s icmp %s > %s echo-reply code 0 echoid 5 seq 6 data 30" % (
        MAC0, CLIENT_MAC, VIP, CLIENT)))
    # A neighbour solicitation: type 135, the target, and the asker's link-layer address.
    me = "2001:db8:18::1"
    rest = socket.inet_pton(socket.AF_INET6, VIP6).hex() + "0101" + CLIENT_MAC.replace(":", "")
    bench.send("eth0", frame(CLIENT_MAC, "33:33:ff:00:01:00", (
        "icmp6 %s > ff02::1:ff00:100 type 135 code 0 ttl 255 echoid 0 seq 0 hex " + rest) % me))
    found = bench.drain()
    if len(found) != 1 or not found[0][1].startswith(
            "%s > %s icmp6 %s > %s type 136 code 0" % (MAC0, CLIENT_MAC, VIP6, me)):
        raise Stuck("neighbour discovery: %s" % found)
    bench.send("eth0", frame(CLIENT_MAC, MAC0, "icmp6 %s > %s echo echoid 5 seq 6 len 30" % (me, VIP6)))
    bench.expect(("eth0", "%s > %s icmp6 %s > %s echo-reply code 0 echoid 5 seq 6 data 30" % (
        MAC0, CLIENT_MAC, VIP6, me)))
    bench.announced.clear()
    bench.adm("addr add 198.18.0.99/24 dev eth0")
    wanted = "%s > %s arp who-has 198.18.0.99 tell 198.18.0.99 at %s" % (MAC0, BROADCAST, MAC0)
    while sum(text == wanted for _, text in bench.announced) < 3:
        bench.keep([], "eth0")
    bench.finish()


def main():
    checks = {name[6:]: check for name, check in globals().items() if name.startswith("check_")}
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in checks:
        sys.exit(__doc__ + "\nchecks: " + " ".join(checks))
    enter()
    try:
        checks[sys.argv[1]](int(sys.argv[2]) if len(sys.argv) == 3 else 1)
    except Stuck as error:
        sys.exit("FAIL %s: %s" % (sys.argv[1], error))
    print("ok", sys.argv[1])


main()
