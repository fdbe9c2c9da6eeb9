"""Runs in the client's namespace, for edits.sh: holds connections while services change.

usage: edits.py RIPVSADM FORWARDING FAMILY
FORWARDING is -m, -g or -i, FAMILY 4 or 6.
"""
import http.client
import subprocess
import sys

METHOD, FAMILY = sys.argv[2:4]
ADDRESS, HOSTS, OTHER = {
    "4": ("192.0.2.100", "10.0.0.1%d", "192.0.2.101:80"),
    "6": ("2001:db8:2::100", "[2001:db8:10::1%d]", "[2001:db8:2::101]:80"),
}[FAMILY]
SERVICE = "[%s]:80" % ADDRESS if FAMILY == "6" else "%s:80" % ADDRESS
# only NAT can have another port
SERVERS = {"web%d" % number: "%s:%d" % (HOSTS % number, 8080 if METHOD == "-m" else 80)
           for number in (1, 2, 3)}
PATIENCE = 60          # seconds for an answer that has to come
SILENCE = 1.5          # seconds for one that must not


def adm(line):
    done = subprocess.run(sys.argv[1:2] + line.split(), text=True, capture_output=True)
    assert done.returncode == 0, "%s: %s" % (line, done.stderr)
    return done.stdout


class Held:
    """A kept-alive HTTP connection to the virtual address."""

    def __init__(self):
        self.http = http.client.HTTPConnection(ADDRESS, 80, timeout=PATIENCE)
        self.server = self.ask()

    def ask(self):
        """Who answers a request on this connection."""
        self.http.request("GET", "/")
        return self.http.getresponse().read().decode().strip()

    def silent(self):
        """Sends a request. Returns whether no answer came, which leaves it pending."""
        self.http.sock.settimeout(SILENCE)
        self.http.request("GET", "/")
        try:
            self.http.sock.recv(1)
            return False
        except TimeoutError:
            return True
        finally:
            self.http.sock.settimeout(PATIENCE)

    def pending(self):
        """The answer to the request that silent() sent."""
        return self.http.getresponse().read().decode().strip()

    def close(self):
        self.http.close()

    def ask_until(self, gone):
        """Sends a request that nobody answers, and waits until gone() is true."""
        self.http.request("GET", "/")
        self.http.sock.settimeout(0.1)
        for _ in range(PATIENCE * 10):
            if gone():
                return
            try:
                assert not self.http.sock.recv(1), "a removed server answered"
            except (TimeoutError, ConnectionError):
                pass
        raise AssertionError("the connection of a removed server is still listed")


def spread(count):
    """The servers of count new connections, which are closed at once."""
    found = []
    for _ in range(count):
        held = Held()
        found.append(held.server)
        held.close()
    return found


def held_for_each():
    """One connection for each server."""
    held = {}
    for _ in range(60):
        one = Held()
        if one.server in held:
            one.close()
        held.setdefault(one.server, one)
        if len(held) == len(SERVERS):
            return held
    raise AssertionError("60 connections reached only %s" % sorted(held))


def all_answer(held, why):
    for server, one in held.items():
        assert one.ask() == server, "%s: a connection of %s went elsewhere" % (why, server)
    print("ok", why)


def main():
    adm("-A -t %s -s rr" % SERVICE)
    for server in SERVERS.values():
        adm("-a -t %s -r %s %s" % (SERVICE, server, METHOD))
    held = held_for_each()
    all_answer(held, "connections answer")

    adm("-E -t %s -s wlc" % SERVICE)
    all_answer(held, "another scheduler")
    adm("-E -t %s -s rr -p 100" % SERVICE)
    all_answer(held, "persistence comes")
    adm("-E -t %s -s rr" % SERVICE)
    adm("-e -t %s -r %s %s -w 7 -x 100000 -y 5" % (SERVICE, SERVERS["web1"], METHOD))
    all_answer(held, "a server's weight and thresholds")
    adm("-A -t %s -s rr" % OTHER)
    adm("-a -t %s -r %s:80 -m" % (OTHER, HOSTS % 1))
    adm("-D -t %s" % OTHER)
    all_answer(held, "another service comes and goes")

    adm("-e -t %s -r %s %s -w 0" % (SERVICE, SERVERS["web2"], METHOD))
    found = spread(30)
    assert "web2" not in found, "a server of weight 0 got a new connection: %s" % found
    assert {"web1", "web3"} <= set(found), "weight 0 of one server: %s" % found
    all_answer(held, "weight 0 drains: no new connections, known ones go on")
    adm("-e -t %s -r %s %s -w 1" % (SERVICE, SERVERS["web2"], METHOD))

    # removed: the client's packets are dropped without a word, new connections go elsewhere
    adm("-d -t %s -r %s" % (SERVICE, SERVERS["web3"]))
    assert held["web3"].silent(), "a removed server answered"
    assert "web3" not in spread(20), "a removed server got a new connection"
    for server in ("web1", "web2"):
        assert held[server].ask() == server, "removing web3 broke %s" % server
    print("ok a server removed: silence for its connections, the others go on")
    # added again: its connections are its own again (the client has sent once more by then)
    adm("-a -t %s -r %s %s" % (SERVICE, SERVERS["web3"], METHOD))
    assert held["web3"].pending() == "web3", "a server added again lost its connection"
    all_answer(held, "a server added again has its connections back")

    # with expire_nodest_conn they end, at the latest with their next packet
    host, port = held["web3"].http.sock.getsockname()[:2]
    client = "[%s]:%d" % (host, port) if FAMILY == "6" else "%s:%d" % (host, port)
    assert client in adm("-Lnc"), "no entry for %s" % client
    adm("sysctl set net.ipv4.vs.expire_nodest_conn 1")
    adm("-d -t %s -r %s" % (SERVICE, SERVERS["web3"]))
    held.pop("web3").ask_until(lambda: client not in adm("-Lnc"))
    all_answer(held, "expire_nodest_conn ends what has no server")

    adm("sysctl set net.ipv4.vs.expire_nodest_conn 0")
    adm("-C")
    assert "TCP" not in adm("-Ln"), "-C left a service"
    print("ok all services cleared")


main()
