#!/usr/bin/env python3
"""What ripvsd has answered outlives kill -9 at any moment, a torn tail of its journal, and a full disk.

usage: kills.py CHECK [ROUNDS]
CHECK is the name of a function below without `check_`; ROUNDS is how often ripvsd is killed. RIPVS_BIN is the folder of
the programs. Needs root. When it is killed is drawn at random, and what is looked at does not depend on that.
"""
import copy
import ctypes
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

BIN = os.environ["RIPVS_BIN"]
FAMILY = 33
NEW_SERVICE, DEL_SERVICE, NEW_DEST, SET_DEST, DEL_DEST = 1, 3, 5, 6, 7
UNDER_WAY = 200


class Daemon:
    """ripvsd without packets, in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.process = None
        with open(folder + "/ripvsd.toml", "w") as config:
            config.write(
                f'workers = 1\nconnections = 2000\nsocket = "{folder}/sock"\nstate_dir = "{folder}/state"\n'
                '[eal]\nargs = ["--no-huge"]\n'
                '[[port]]\nname = "eth0"\ndevice = "net_null0,no-rx=1"\naddresses = ["198.18.0.254/16"]\n'
            )

    def start(self):
        """Starts it, and returns a connection to it."""
        with open(self.folder + "/log", "a") as log:
            # It goes with this process.
            die = ctypes.CDLL(None).prctl
            self.process = subprocess.Popen(
                [BIN + "/ripvsd", "--config", self.folder + "/ripvsd.toml"],
                stdout=log, stderr=log, preexec_fn=lambda: die(1, signal.SIGKILL),
            )
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                link.connect(self.folder + "/sock")
                link.settimeout(60)
                return link
            except OSError:
                link.close()
                time.sleep(0.01)
        sys.exit("ripvsd does not come up:\n" + self.log()[-2000:])

    def log(self):
        with open(self.folder + "/log") as log:
            return log.read()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def journals(self):
        """Its journal files, the newest last."""
        state = self.folder + "/state"
        names = os.listdir(state) if os.path.isdir(state) else []
        numbers = sorted(int(name[8:]) for name in names if name.startswith("journal."))
        return [f"{state}/journal.{number}" for number in numbers]

    def tables(self):
        """Services by port, with the weights of their dests by number."""
        shown = subprocess.run(
            [BIN + "/ripvsadm", "--socket", self.folder + "/sock", "-S", "-n"],
            capture_output=True, text=True, timeout=60, check=True,
        ).stdout
        tables = {}
        for words in map(str.split, shown.splitlines()):
            port = int(words[2].split(":")[1])
            if words[0] == "-A":
                tables[port] = {}
            else:
                a, b = words[4].split(":")[0].split(".")[2:]
                tables[port][int(a) * 256 + int(b)] = int(words[words.index("-w") + 1])
        return tables


def attr(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def encode(change, seq):
    """A change as a request of the kernel's family."""
    command, port, dest, weight = change
    service = attr(1, struct.pack("=H", 2)) + attr(2, struct.pack("=H", 6))
    service += attr(3, bytes([192, 0, 2, 1]) + bytes(12)) + attr(4, struct.pack("!H", port))
    if command == NEW_SERVICE:
        service += attr(6, b"rr\0") + attr(7, struct.pack("=II", 0, 0xFFFFFFFF))
        service += attr(8, struct.pack("=I", 0)) + attr(9, struct.pack("=I", 0xFFFFFFFF))
    body = attr(0x8001, service)
    if dest is not None:
        words = attr(1, bytes([10, 0, dest >> 8, dest & 255]) + bytes(12)) + attr(2, struct.pack("!H", port))
        for kind, value in ((3, 3), (4, weight), (5, 0), (6, 0)):
            words += attr(kind, struct.pack("=I", value))
        body += attr(0x8002, words)
    payload = struct.pack("=BBH", command, 1, 0) + body
    return struct.pack("=IHHII", 16 + len(payload), FAMILY, 5, seq, 0) + payload


def draw(chance):
    """A change of some service or dest."""
    port, dest, weight = chance.randrange(1, 60), chance.randrange(1, 40), chance.randrange(1, 9)
    kind = chance.random()
    if kind < 0.18:
        return (NEW_SERVICE if kind < 0.15 else DEL_SERVICE, port, None, 0)
    return (NEW_DEST if kind < 0.7 else SET_DEST if kind < 0.85 else DEL_DEST, port, dest, weight)


def apply(tables, change):
    """Makes a change in `tables`, as the kernel would. Whether there was anything to change."""
    command, port, dest, weight = change
    if command == NEW_SERVICE:
        return tables.setdefault(port, found := {}) is found
    if port not in tables:
        return False
    if command == DEL_SERVICE:
        del tables[port]
        return True
    dests = tables[port]
    if (dest in dests) == (command == NEW_DEST):
        return False
    if command == DEL_DEST:
        del dests[dest]
    else:
        dests[dest] = weight
    return True


class Stream:
    """Changes that go to ripvsd without end, some ahead of their answers."""

    def __init__(self, link, chance):
        self.link, self.chance = link, chance
        self.seq = 0
        self.under_way, self.answered = [], []

    def run(self):
        """Until ripvsd is gone; then takes what it had answered."""
        try:
            while True:
                while len(self.under_way) < UNDER_WAY:
                    self.send()
                self.receive()
        except OSError:
            pass
        try:
            while True:
                self.receive()
        except OSError:
            self.link.close()

    def send(self):
        batch = b""
        for _ in range(self.chance.choice([1, 1, 5, 20])):
            self.seq += 1
            change = draw(self.chance)
            self.under_way.append((self.seq, change))
            batch += encode(change, self.seq)
        self.link.send(batch)

    def receive(self):
        data = self.link.recv(65536)
        if not data:
            raise OSError("closed")
        at = 0
        while at < len(data):
            length, _, _, seq, _, code = struct.unpack_from("=IHHIIi", data, at)
            sent, change = self.under_way.pop(0)
            assert sent == seq, "an answer that nobody waits for"
            self.answered.append((change, code))
            at += (length + 3) & ~3


def stream_of_kills(daemon, rounds, chance, tear):
    """Kills ripvsd again and again; what was answered is there each time, and of the rest a beginning."""
    tables, total = {}, 0
    link = daemon.start()
    for number in range(rounds):
        stream = Stream(link, chance)
        killer = threading.Timer(chance.uniform(0, 0.25), daemon.process.kill)
        killer.start()
        stream.run()
        killer.join()
        daemon.process.wait()
        if tear and daemon.journals():
            with open(daemon.journals()[-1], "ab") as journal:
                journal.write(chance.randbytes(chance.randrange(1, 30)))
        for change, code in stream.answered:
            assert apply(tables, change) == (code == 0), (change, code)
        total += len(stream.answered)
        link = daemon.start()
        found = daemon.tables()
        wanted = copy.deepcopy(tables)
        for _, change in stream.under_way:
            if wanted == found:
                break
            apply(wanted, change)
        assert wanted == found, f"kill {number}: lost\n" + daemon.log()[-2000:]
        tables = found
    daemon.kill()
    print(f"{total} changes were answered, none of them is lost after {rounds} kills")


def check_kill(daemon, rounds):
    stream_of_kills(daemon, rounds, random.Random(), False)


def check_torn(daemon, rounds):
    stream_of_kills(daemon, rounds, random.Random(), True)
    torn = daemon.log().count("was not written to its end and is dropped")
    assert torn > 0, "no torn tail was named"
    print(f"{torn} torn tails were named")


def check_full(daemon, _rounds):
    """On a full disk changes are refused with the reason, and what was not refused is there again."""
    state = daemon.folder + "/state"
    os.mkdir(state)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", state], check=True)
    try:
        link = daemon.start()
        link.close()
        lines = [f"-A -t 192.0.2.{1 + n // 60}:{1 + n % 60} -s rr" for n in range(8000)]
        restore = [BIN + "/ripvsadm", "--socket", daemon.folder + "/sock", "-R"]
        done = subprocess.run(restore, input="\n".join(lines), capture_output=True, text=True, timeout=60)
        refused = done.stderr.splitlines()
        assert refused and done.returncode == 255, done
        why = {re.sub(r" *\(.*", "", line) for line in refused}
        assert why == {"in effect, but it cannot be written to the journal: No space left on device"}, why
        daemon.kill()
        daemon.start().close()
        list_all = [BIN + "/ripvsadm", "--socket", daemon.folder + "/sock", "-S", "-n"]
        kept = subprocess.run(list_all, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
        assert sorted(kept) == sorted(lines[: len(lines) - len(refused)]), "not what was answered"
        daemon.kill()
        print(f"{len(kept)} of {len(lines)} services fit the disk, and all that were answered are there")
    finally:
        if daemon.process:
            daemon.process.kill()
        subprocess.run(["umount", state], check=True)


def main():
    check, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
    folder = tempfile.mkdtemp(prefix="ripvs-kills-")
    daemon = Daemon(folder)
    try:
        globals()["check_" + check](daemon, rounds)
    finally:
        if daemon.process:
            daemon.process.kill()
            daemon.process.wait()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
