"""The requests of ripvsd's own netlink family that a runner makes again and again: settle
and advance. `ripvsadm` has both; to start a program for every packet takes longer than
the packet. The encoding is that of src/api/ripvs."""
import socket
import struct

RIPVS, VERSION, SETTLE, ADVANCE = 34, 1, 25, 28
REQUEST, ACK, NLMSG_ERROR = 1, 4, 2
NESTED = 0x8000


def attribute(number, payload, nested=False):
    length = 4 + len(payload)
    head = struct.pack("=HH", length, number | (NESTED if nested else 0))
    return head + payload + bytes(-length % 4)


def attributes(payload):
    while len(payload) >= 4:
        length, number = struct.unpack_from("=HH", payload)
        yield number & ~NESTED, payload[4:length]
        payload = payload[length + -length % 4:]


class Channel:
    """A connection to ripvsd's control socket."""

    def __init__(self, path, patience):
        self.end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end.settimeout(patience)
        self.end.connect(path)
        self.sequence = 0

    def settle(self, received, timeout):
        """Wait until so many frames came by each port and all have their verdict.
        Returns whether that was so in time, and {port: (received, sent)}."""
        payload = b""
        for name, number in received.items():
            port = attribute(1, name.encode()) + attribute(2, struct.pack("=Q", number))
            payload += attribute(1, port, nested=True)
        payload += attribute(2, struct.pack("=I", int(timeout * 1000)))
        return settled(self.ask(SETTLE, payload))

    def advance(self, seconds):
        """Move ripvsd's clock, which it holds, and wait until it has done what became due."""
        self.ask(ADVANCE, attribute(1, struct.pack("=Q", round(seconds * 1000))), ACK)

    def ask(self, command, payload, flags=0):
        """Make a request, and return what it is answered."""
        self.sequence += 1
        body = struct.pack("=BBH", command, VERSION, 0) + payload
        self.end.send(struct.pack("=IHHII", 16 + len(body), RIPVS, REQUEST | flags,
                                  self.sequence, 0) + body)
        while True:
            answer = self.end.recv(1 << 16)
            if not answer:
                raise OSError("ripvsd closed the control connection")
            while len(answer) >= 16:
                length, kind, _, sequence, _ = struct.unpack_from("=IHHII", answer)
                body, answer = answer[16:length], answer[length + -length % 4:]
                if sequence != self.sequence:
                    continue
                if kind == NLMSG_ERROR:
                    error, = struct.unpack_from("=i", body)
                    if error:
                        raise OSError(-error, "request %d was refused" % command)
                    if flags & ACK:
                        return b""
                elif kind == RIPVS:
                    return body[4:]


def settled(payload):
    complete, ports = False, {}
    for number, value in attributes(payload):
        if number == 1:
            complete = value[0] == 1
        elif number == 2:
            port = dict(attributes(value))
            counts = (struct.unpack("=Q", port[2])[0], struct.unpack("=Q", port[3])[0])
            ports[port[1].decode()] = counts
    return complete, ports
