"""Random scenarios about one theme each, for tests/oracle/generate.

A theme keeps to one corner (the states of SCTP, errors about tunnels, FTP's commands, ...), which
a scenario about everything seldom gets into. What the kernel leaves to chance is kept out of
these too.
"""
import struct

import packet

TUNNELS = ("-i", "-i --tun-type gre", "-i --tun-type gre --tun-csum",
           "-i --tun-type gue --tun-port 6080", "-i --tun-type gue --tun-port 6080 --tun-csum")
CHUNKS = packet.SCTP_CHUNKS
ASSOCIATIONS = (
    "c INIT vtag 0|s INIT_ACK|c COOKIE_ECHO|s COOKIE_ACK|c DATA data x|s SACK|c SHUTDOWN|"
    "s SHUTDOWN_ACK|c SHUTDOWN_COMPLETE",
    "c INIT vtag 0|s INIT_ACK|c COOKIE_ECHO DATA data x|s COOKIE_ACK SACK|s SHUTDOWN|"
    "c SHUTDOWN_ACK|s SHUTDOWN_COMPLETE",
    "c INIT vtag 0|s ABORT", "c INIT vtag 0|s INIT_ACK|c COOKIE_ECHO|s ERROR",
    "c INIT vtag 0|s INIT_ACK|s COOKIE_ACK|c ABORT")
FLAGS = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}


def end(address, port):
    """ADDRESS:PORT, as both ipvsadm and packet descriptions take it."""
    return ("[%s]:%d" if ":" in address else "%s:%d") % (address, port)


class Nets:
    """The addresses of one family in the topology two-arm."""

    def __init__(self, v6):
        self.v6 = v6
        self.virtual = "2001:db8:2::100" if v6 else "192.0.2.100"
        self.client = "2001:db8:18::%d" if v6 else "198.18.0.%d"
        self.server = "2001:db8:10::%d" if v6 else "10.0.0.%d"
        self.own = "2001:db8:10::fe" if v6 else "10.0.0.254"
        self.icmp = "icmp6" if v6 else "icmp"


# ---------------------------------------------------------------- SCTP

def sctp(s):
    """Associations in step, out of step, and chunks at random."""
    nets = Nets(s.one_in(4))
    for key, values in (("sloppy_sctp", (1,)), ("conn_reuse_mode", (0, 2))):
        if s.one_in(3):
            s.put("sysctl net.ipv4.vs.%s=%d" % (key, s.pick(values)))
    method = s.pick(("-m", "-m", "-m", "-g", "-i"))
    inside = s.pick((9, 99)) if method == "-m" else 9
    service = end(nets.virtual, 9)
    s.admin("-A --sctp-service", service, "-s", s.pick(("rr", "lc", "wlc", "sed", "sh")),
            s.pick(("", "", "-p 60")))
    servers = [end(nets.server % host, inside) for host in range(11, s.random.randint(12, 13))]
    for server in servers:
        s.admin("-a --sctp-service", service, "-r", server, method)
    under_way = []
    for _ in range(s.random.randint(22, 45)):
        if not under_way or s.one_in(6):
            client = end(nets.client % s.random.randint(1, 3), s.random.randint(1001, 1003))
            under_way.append((client, s.pick(ASSOCIATIONS).split("|")))
        client, steps = s.pick(under_way)
        if steps and not s.one_in(3):
            side, words = steps.pop(0).split(" ", 1)
        else:
            side = s.pick("cs")
            words = " ".join(s.random.sample(CHUNKS, s.pick((1, 1, 2, 3))))
            words += s.pick(("", "", "", " sum bad", " ttl 1"))
        if side == "c":
            s.put("> eth0 sctp", client, ">", service, words)
        elif method == "-m":
            for server in servers:
                s.put("> eth1 sctp", server, ">", client, words)
        if s.one_in(6):
            s.admin("-Lnc")


# ---------------------------------------------------------------- tunnels

def tunnel(s):
    """Packets through tunnels of each type, and errors about their outsides."""
    inner = Nets(s.one_in(4))
    s.put("sysctl net.ipv4.vs.pmtu_disc=%d" % s.pick((0, 1, 1)))
    proto = s.pick(("tcp", "tcp", "udp", "sctp"))
    words = {"tcp": ("S", "A", "PA"), "udp": ("data x",), "sctp": ("INIT vtag 0", "DATA")}[proto]
    service, servers = end(inner.virtual, 80), []
    s.admin("-A", FLAGS[proto], service, "-s rr")
    for host in range(11, s.random.randint(12, 14)):
        outer = Nets(inner.v6 != s.one_in(5))
        method = s.pick(TUNNELS[:3] if outer.v6 else TUNNELS)
        servers.append((outer, outer.server % host, method))
        s.admin("-a", FLAGS[proto], service, "-r", end(servers[-1][1], 80), method)
    clients = [end(inner.client % i, s.random.randint(1001, 1003)) for i in (1, 2, 3)]
    sizes = ("", "len 600", "len 1300", "len 1400", "len 1452", "tos 3", "ttl 1", "sum bad")
    if not inner.v6:
        sizes += ("df len 1300", "df len 1440", "df len 1460", "ipopt 94040000")
    for step in range(s.random.randint(20, 40)):
        client = s.pick(clients)
        if step < 4 or s.one_in(2):
            text = s.pick(words).replace("INIT vtag 0", "DATA" if step > 4 else "INIT vtag 0")
            s.put("> eth0", proto, client, ">", service, text, s.pick(sizes) if step > 4 else "")
            continue
        outer, server, method = s.pick(servers)
        flags = "" if inner.v6 else s.pick(("", "df"))
        quoted = packet.build("%s %s > %s %s %s" % (proto, client, service, s.pick(words), flags), 77)
        s.put("> eth1", outer.icmp, outer.server % 1, ">", outer.own, tunnel_error(s, outer),
              "{", wrapped(outer.own, server, method, quoted, inner.v6), "}")
    s.admin("-Ln --tun-info")


def tunnel_error(s, outer):
    """An error's kind; none that tells a size: the first tells the old one."""
    kinds = ("unreach port", "time-exceeded", "param")
    if not outer.v6:
        kinds += ("unreach host", "unreach protocol", "time-exceeded code 1", "quench")
    return s.pick(kinds) + s.pick(("", "", "", " quote 28", " quote 48", " sum bad"))


def wrapped(source, target, method, inside, v6):
    """The description of what a tunnel makes of the packet inside."""
    number = 41 if v6 else 4
    if "gre" in method:
        check = "csum" in method
        header = struct.pack("!HH", 0x8000 * check, 0x86dd if v6 else 0x0800) + bytes(4 * check)
        return "ip %s > %s proto 47 hex %s" % (source, target, (header + inside).hex())
    if "gue" in method:
        header = bytes((0, number, 0, 0))
        return "udp %s > %s hex %s" % (end(source, 40000), end(target, 6080),
                                       (header + inside).hex())
    return "ip %s > %s proto %d hex %s" % (source, target, number, inside.hex())


# ---------------------------------------------------------------- fragments

def fragment(s):
    """Datagrams in uneven parts, both ways, errors among them."""
    nets = Nets(s.one_in(2))
    if s.one_in(3):
        s.put("if eth1 mtu", s.pick((1280, 1300, 1400)))
    services = []
    for proto, port in (("tcp", 80), ("udp", 53), ("sctp", 9)):
        method = s.pick(("-m", "-m", "-g") + TUNNELS[:3])
        inside = s.pick((port, 99)) if method == "-m" else port
        service, server = end(nets.virtual, port), end(nets.server % 11, inside)
        s.admin("-A", FLAGS[proto], service, "-s rr")
        s.admin("-a", FLAGS[proto], service, "-r", server, method)
        first = {"tcp": "S", "udp": "data q", "sctp": "INIT vtag 0"}[proto]
        s.put("> eth0", proto, end(nets.client % 1, 1001), ">", service, first)
        services.append((proto, service, server if method == "-m" else service))
    for number in range(s.random.randint(6, 14)):
        proto, service, server = s.pick(services)
        client, back = end(nets.client % 1, 1001), s.one_in(2)
        size = s.pick((60, 100, 600, 1500, 2600))
        body = {"tcp": "A", "udp": "", "sctp": "DATA"}[proto] + " len %d" % size
        text = "%s %s > %s %s" % ((proto, server, client, body) if back
                                  else (proto, client, service, body))
        if s.one_in(4) and not (nets.v6 and back):
            source, target, ends = ((nets.server % 1, nets.client % 1, (client, server)) if back
                                    else (nets.client % 3, nets.virtual, (service, client)))
            text = "%s %s > %s unreach port { %s %s > %s %s }" % (
                nets.icmp, source, target, proto, *ends, body)
        text += s.pick((" ", " ", " tos 3 ", " ttl 1 ", " ttl 2 ", " sum bad "))
        total = len(packet.build(text)) - (40 if nets.v6 else 20)
        parts, at = [], 0
        while at < total and len(parts) < 6:
            length = 8 * s.random.randint(1, 6 if size <= 100 else 150)
            parts.append((at, length if len(parts) < 5 else 4000))
            at += length
        if s.one_in(4):
            s.random.shuffle(parts)
        for part in parts:
            s.put("> eth1" if back else "> eth0", text, "id %d frag %d %d" % (
                7000 + number, *part))


# ---------------------------------------------------------------- edits

def edit(s):
    """Services and servers added, changed and deleted between packets."""
    targets = {"-t 192.0.2.100:80": ("tcp", "192.0.2.100:80"),
               "-u 192.0.2.100:53": ("udp", "192.0.2.100:53"), "-f 3": ("tcp", "192.0.2.102:80"),
               "-t [2001:db8:2::100]:80": ("tcp", "[2001:db8:2::100]:80")}
    s.put("mark 3 tcp 192.0.2.102/32 80")
    methods = {name: s.pick(("-m", "-g", "-i")) for name in targets}

    def server(name):
        return end(Nets("[" in name).server % s.random.randint(11, 15),
                   int(targets[name][1].rsplit(":", 1)[1]))

    def options(name):
        mask = "64" if "[" in name else "255.255.255.0"
        return "-s %s %s" % (s.pick(s.schedulers), s.pick(("", "", "-p 60", "-p 300 -M " + mask)))

    def limits():
        return "-w %d %s" % (s.random.randint(0, 4), s.pick(("", "", "-x 2", "-x 3 -y 2")))

    for name in targets:
        s.admin("-A", name, options(name))
        for _ in range(3):
            s.admin("-a", name, "-r", server(name), methods[name], limits())
    for _ in range(s.random.randint(30, 60)):
        name = s.pick(sorted(targets))
        proto, virtual = targets[name]
        what = s.random.randrange(10)
        if what < 5:
            client = end(Nets("[" in name).client % s.random.randint(1, 5),
                         s.random.randint(1001, 1009))
            s.put("> eth0", proto, client, ">", virtual,
                  "data x" if proto == "udp" else s.pick(("S", "S", "A", "FA")))
        elif what < 7:
            s.admin(s.pick(("-a", "-e")), name, "-r", server(name), methods[name], limits())
        elif what == 7:
            s.admin("-d", name, "-r", server(name))
        elif what == 8:
            s.admin("-E", name, options(name))
        else:
            s.admin(s.pick(("-Ln", "-Lnc", "-Sn", "-Ln --thresholds", "-Ln --persistent-conn")))
    s.admin("-Ln --thresholds")


THEMES = {"sctp": sctp, "tunnel": tunnel, "fragment": fragment, "edit": edit}
