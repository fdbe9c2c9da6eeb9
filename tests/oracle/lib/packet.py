"""Packet descriptions <-> bytes.

build("tcp 198.18.0.1:1000 > 192.0.2.100:80 S seq 1") gives the bytes of an IP
packet; decode(bytes) gives such a description back, for people to read.
The language is documented in ../README.md ("Packets").
"""
import ipaddress
import re
import struct

PROTO = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmp6": 58}
TCP_FLAGS = "FSRPAUEW"            # bit 0 upwards
SCTP_CHUNKS = ["DATA", "INIT", "INIT_ACK", "SACK", "HEARTBEAT", "HEARTBEAT_ACK",
               "ABORT", "SHUTDOWN", "SHUTDOWN_ACK", "ERROR", "COOKIE_ECHO",
               "COOKIE_ACK", "ECNE", "CWR", "SHUTDOWN_COMPLETE"]
SCTP_BODY = {"INIT": 16, "INIT_ACK": 16, "SACK": 12, "DATA": 12, "SHUTDOWN": 4}
ICMP_TYPES = {
    4: {"echo-reply": 0, "unreach": 3, "quench": 4, "redirect": 5, "echo": 8,
        "time-exceeded": 11, "param": 12, "timestamp": 13},
    6: {"unreach": 1, "too-big": 2, "time-exceeded": 3, "param": 4,
        "echo": 128, "echo-reply": 129},
}
ICMP_CODES = {
    4: {"net": 0, "host": 1, "protocol": 2, "port": 3, "frag-needed": 4},
    6: {"noroute": 0, "admin": 1, "addr": 3, "port": 4},
}
ICMP_ERRORS = {4: (3, 4, 5, 11, 12), 6: (1, 2, 3, 4)}
EXT_HEADERS = {"hop": 0, "dst": 60}


# ---------------------------------------------------------------- checksums

def sum16(data):
    """The Internet checksum of data."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def _crc32c_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ 0x82F63B78 if n & 1 else n >> 1
        table.append(n)
    return table


_CRC32C = _crc32c_table()


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xff] ^ (crc >> 8)
    return crc ^ 0xffffffff


def pseudo(src, dst, proto, length):
    """The pseudo header of src and dst (packed addresses)."""
    if len(src) == 4:
        return src + dst + struct.pack("!BBH", 0, proto, length)
    return src + dst + struct.pack("!IHBB", length, 0, 0, proto)


# ---------------------------------------------------------------- building

class Words:
    """The words of a description, consumed from the left."""

    def __init__(self, text):
        self.words = re.findall(r'"[^"]*"|[{}]|[^\s{}]+', text)
        self.text = text

    def __bool__(self):
        return bool(self.words)

    def next(self):
        if not self.words:
            raise ValueError("description ends too early: " + self.text)
        return self.words.pop(0)

    def number(self):
        return int(self.next(), 0)

    def braces(self):
        """The text of a { ... } group, braces nested."""
        if self.next() != "{":
            raise ValueError("expected { in " + self.text)
        depth, inner = 1, []
        while True:
            word = self.next()
            depth += (word == "{") - (word == "}")
            if not depth:
                return " ".join(inner)
            inner.append(word)


def endpoint(word):
    """'a.b.c.d:port', '[v6]:port' or a bare address -> (address, port)."""
    match = re.fullmatch(r"\[(.*)\]:(\d+)", word) or re.fullmatch(r"([\d.]+):(\d+)", word)
    if match:
        return ipaddress.ip_address(match[1]), int(match[2])
    return ipaddress.ip_address(word), 0


def build(text, ipid=0):
    """The IP packet that text describes. ipid: IPv4 identification unless given."""
    words = Words(text)
    kind = words.next()
    src, sport = endpoint(words.next())
    if words.next() != ">":
        raise ValueError("expected SRC > DST in " + text)
    dst, dport = endpoint(words.next())
    opt = {"ttl": 64, "tos": 0, "id": ipid, "flow": 0, "ext": [], "chunks": [], "flags": 0,
           "df": False, "mf": False, "data": b"", "inner": b"", "ipopt": b"", "tcpopt": b""}
    while words:
        _option(words, opt, src.version)
    proto = opt.get("proto", PROTO.get(kind))
    if proto is None:
        raise ValueError("unknown protocol or no 'proto N': " + text)
    payload = _transport(kind, src.packed, dst.packed, sport, dport, proto, opt)
    return (_ipv4 if src.version == 4 else _ipv6)(src.packed, dst.packed, proto, payload, opt)


def _option(words, opt, version):
    word = words.next()
    if word in ("ttl", "tos", "id", "flow", "seq", "ack", "win", "vtag", "mtu", "proto",
                "quote", "type", "code", "gateway", "echoid"):
        opt[word] = words.number()
    elif word in ("df", "mf"):
        opt[word] = True
    elif word in ("sum", "ipsum"):
        value = words.next()
        opt[word] = value if value == "bad" else int(value, 0)
    elif word == "frag":
        opt["frag"] = words.number(), words.number()
    elif word == "data":
        opt["data"] = words.next().strip('"').encode().decode("unicode_escape").encode("latin-1")
    elif word == "len":
        opt["data"] = bytes(i & 0xff for i in range(words.number()))
    elif word == "hex":
        opt["data"] = bytes.fromhex(words.next())
    elif word in ("ipopt", "tcpopt"):
        opt[word] = bytes.fromhex(words.next())
    elif word == "mss":
        opt["tcpopt"] += struct.pack("!BBH", 2, 4, words.number())
    elif word == "ext":
        opt["ext"].append(EXT_HEADERS[words.next()])
    elif word in SCTP_CHUNKS:
        opt["chunks"].append(word)
    elif word in ICMP_TYPES[version]:
        opt["type"] = ICMP_TYPES[version][word]
        if opt["type"] in ICMP_ERRORS[version]:
            opt.setdefault("code", 0)
    elif word in ICMP_CODES[version]:
        opt["code"] = ICMP_CODES[version][word]
    elif word == "{":
        words.words.insert(0, word)
        opt["inner"] = build(words.braces(), opt["id"] ^ 0x8000)
    elif all(c in TCP_FLAGS for c in word):
        opt["flags"] = sum(1 << TCP_FLAGS.index(c) for c in word)
    else:
        raise ValueError("unknown word %r in %s" % (word, words.text))


def _forced(opt, correct, key="sum"):
    value = opt.get(key, correct)
    return (correct + 1) & 0xffff if value == "bad" else value


def _transport(kind, src, dst, sport, dport, proto, opt):
    data = opt["data"]
    if kind == "tcp":
        options = opt["tcpopt"] + b"\1" * (-len(opt["tcpopt"]) % 4)
        words = struct.pack("!HHIIBBHHH", sport, dport, opt.get("seq", 1000), opt.get("ack", 0),
                            (5 + len(options) // 4) << 4, opt["flags"], opt.get("win", 64240),
                            0, 0) + options
        return _with_sum(words, 16, data, src, dst, proto, opt)
    if kind == "udp":
        header = struct.pack("!HHHH", sport, dport, 8 + len(data), 0)
        return _with_sum(header, 6, data, src, dst, proto, opt, zero=0xffff)
    if kind == "sctp":
        body = b""
        for name in opt["chunks"]:
            value = bytes(SCTP_BODY.get(name, 0)) + (data if name == "DATA" else b"")
            body += struct.pack("!BBH", SCTP_CHUNKS.index(name), 3 * (name == "DATA"),
                                4 + len(value)) + value + bytes(-len(value) % 4)
        header = struct.pack("!HHII", sport, dport, opt.get("vtag", 1), 0)
        crc = crc32c(header + body)
        if opt.get("sum") == "bad":
            crc ^= 1
        return header[:8] + struct.pack("<I", crc) + body
    if kind in ("icmp", "icmp6"):
        inner = opt["inner"][:opt.get("quote", len(opt["inner"]))]
        if opt["type"] in ICMP_ERRORS[4 if kind == "icmp" else 6]:
            rest = struct.pack("!I", opt.get("mtu", opt.get("gateway", 0)))
        else:                                    # echo and its like: id, seq
            rest = struct.pack("!HH", opt.get("echoid", 7), opt.get("seq", 1))
        header = struct.pack("!BBH", opt["type"], opt.get("code", 0), 0) + rest
        if kind == "icmp":
            total = _forced(opt, sum16(header + inner + data))
            return header[:2] + struct.pack("!H", total) + header[4:] + inner + data
        return _with_sum(header, 2, inner + data, src, dst, proto, opt)
    return opt["inner"] + data                   # "ip": any protocol, given bytes


def _with_sum(header, at, data, src, dst, proto, opt, zero=0):
    """header + data with the pseudo-header checksum stored at offset at of header."""
    length = len(header) + len(data)
    total = sum16(pseudo(src, dst, proto, length) + header + data) or zero
    total = _forced(opt, total)
    return header[:at] + struct.pack("!H", total) + header[at + 2:] + data


def _ipv4(src, dst, proto, payload, opt):
    offset, more = 0, opt["mf"]
    if "frag" in opt:
        offset, length = opt["frag"]
        more = more or offset + length < len(payload)
        payload = payload[offset:offset + length]
    options = opt["ipopt"] + bytes(-len(opt["ipopt"]) % 4)
    hlen = 20 + len(options)
    header = struct.pack("!BBHHHBBH", 0x40 | hlen // 4, opt["tos"], hlen + len(payload), opt["id"],
                         opt["df"] << 14 | more << 13 | offset // 8, opt["ttl"], proto, 0)
    total = _forced(opt, sum16(header + src + dst + options), "ipsum")
    return header[:10] + struct.pack("!H", total) + src + dst + options + payload


def _ipv6(src, dst, proto, payload, opt):
    chain = [(number, b"\1\4" + bytes(4)) for number in opt["ext"]]
    if "frag" in opt:
        offset, length = opt["frag"]
        more = opt["mf"] or offset + length < len(payload)
        payload = payload[offset:offset + length]
        chain.append((44, struct.pack("!HI", offset | more, opt["id"])))
    numbers = [number for number, _ in chain] + [proto]
    extension = b"".join(bytes([following, 0]) + body
                         for (_, body), following in zip(chain, numbers[1:]))
    payload = extension + payload
    return struct.pack("!IHBB", 6 << 28 | opt["tos"] << 20 | opt["flow"], len(payload),
                       numbers[0], opt["ttl"]) + src + dst + payload


# ---------------------------------------------------------------- decoding

def decode(packet, quoted=False):
    """A one-line description of an IP packet. quoted: it stands, perhaps cut
    short, inside an ICMP error, so its checksums cannot be judged."""
    try:
        if packet[0] >> 4 == 4:
            return _decode4(packet, quoted)
        if packet[0] >> 4 == 6:
            return _decode6(packet, quoted)
    except (IndexError, struct.error, ValueError):
        pass
    return "? " + packet.hex()


def _decode4(packet, quoted):
    hlen = (packet[0] & 15) * 4
    tos, length, ipid, frag, ttl, proto = struct.unpack("!xBHHHBB", packet[:10])
    src, dst = packet[12:16], packet[16:20]
    notes = ["ttl %d" % ttl, "id %d" % ipid]
    if tos:
        notes.append("tos 0x%02x" % tos)
    if frag & 0x4000:
        notes.append("df")
    if hlen > 20:
        notes.append("ipopt " + packet[20:hlen].hex())
    if sum16(packet[:hlen]):
        notes.append("BAD-IPSUM")
    payload = packet[hlen:length]
    if len(payload) < length - hlen and not quoted:
        notes.append("TRUNCATED")
    offset = (frag & 0x1fff) * 8
    if frag & 0x3fff:
        notes.append("frag %d %d%s" % (offset, len(payload), " mf" if frag & 0x2000 else ""))
    return _decode_transport(src, dst, proto, payload, notes, offset, quoted or frag & 0x3fff)


def _decode6(packet, quoted):
    word, length, proto, hlim = struct.unpack("!IHBB", packet[:8])
    src, dst = packet[8:24], packet[24:40]
    notes = ["ttl %d" % hlim]
    if word >> 20 & 0xff:
        notes.append("tos 0x%02x" % (word >> 20 & 0xff))
    if word & 0xfffff:
        notes.append("flow 0x%05x" % (word & 0xfffff))
    payload, offset, partial = packet[40:40 + length], 0, quoted
    if len(payload) < length and not quoted:
        notes.append("TRUNCATED")
    while proto in (0, 43, 44, 60):
        size = 8 + (0 if proto == 44 else payload[1] * 8)
        if proto == 44:
            frag, ident = struct.unpack("!HI", payload[2:8])
            offset, partial = frag & 0xfff8, True
            notes.append("id %d frag %d %d%s" % (ident, offset, len(payload) - 8,
                                                 " mf" if frag & 1 else ""))
        else:
            notes.append("ext %d" % proto)
        proto, payload = payload[0], payload[size:]
        if offset:
            break
    return _decode_transport(src, dst, proto, payload, notes, offset, partial)


def _decode_transport(src, dst, proto, payload, notes, offset, partial):
    a, b = str(ipaddress.ip_address(src)), str(ipaddress.ip_address(dst))
    tail = " ".join([""] + notes)
    if offset:
        return "ip %s > %s proto %d%s" % (a, b, proto, tail)

    def checked(covered):
        return "" if partial or sum16(covered) == 0 else " BAD-SUM"

    def pair(name):
        sport, dport = struct.unpack("!HH", payload[:4])
        form = "%s:%d" if len(src) == 4 else "[%s]:%d"
        return "%s %s > %s" % (name, form % (a, sport), form % (b, dport))

    full = pseudo(src, dst, proto, len(payload)) + payload
    if proto == 6:
        if len(payload) < 20:                    # quoted in an ICMP error
            return pair("tcp") + " seq %d" % struct.unpack("!I", payload[4:8]) + tail
        seq, ack, off, flags, win = struct.unpack("!IIBBH", payload[4:16])
        hlen = (off >> 4) * 4
        names = "".join(n for i, n in enumerate(TCP_FLAGS) if flags >> i & 1) or "-"
        extra = " tcpopt " + payload[20:hlen].hex() if hlen > 20 else ""
        if re.fullmatch(rb"[ -~]+\r\n", payload[hlen:]):        # a line of FTP
            tail = " %s%s" % (ascii(payload[hlen:])[1:], tail)
        return "%s %s seq %d ack %d win %d%s data %d%s%s" % (
            pair("tcp"), names, seq, ack, win, extra, len(payload) - hlen, tail, checked(full))
    if proto == 17:
        length, total = struct.unpack("!HH", payload[4:8])
        text = "%s len %d%s%s" % (pair("udp"), length - 8, tail,
                                  " sum 0" if not total else checked(full))
        if struct.unpack("!H", payload[2:4])[0] == 6080 and not partial:   # GUE
            inner = payload[8 + 4 + (payload[8] & 31) * 4:]
            text += " gue %s | %s" % (payload[8:-len(inner)].hex(), decode(inner))
        return text
    if proto == 132:
        vtag, crc = struct.unpack("!I", payload[4:8])[0], struct.unpack("<I", payload[8:12])[0]
        bad = crc != crc32c(payload[:8] + bytes(4) + payload[12:]) and not partial
        chunks, rest = [], payload[12:]
        while len(rest) >= 4:
            size = max(4, struct.unpack("!H", rest[2:4])[0])
            chunks.append(SCTP_CHUNKS[rest[0]] if rest[0] < len(SCTP_CHUNKS) else str(rest[0]))
            rest = rest[size + -size % 4:]
        return "%s %s vtag %d%s%s" % (pair("sctp"), " ".join(chunks), vtag, tail,
                                      " BAD-SUM" if bad else "")
    if proto in (1, 58):
        version, name = (4, "icmp") if proto == 1 else (6, "icmp6")
        kind, code = payload[0], payload[1]
        names = {number: word for word, number in ICMP_TYPES[version].items()}
        text = "%s %s > %s %s code %d" % (name, a, b, names.get(kind, "type %d" % kind), code)
        if kind in ICMP_ERRORS[version]:
            text += " mtu %d { %s }" % (struct.unpack("!I", payload[4:8])[0],
                                        decode(payload[8:], True))
        else:
            text += " echoid %d seq %d data %d" % (*struct.unpack("!HH", payload[4:8]),
                                                 len(payload) - 8)
        return text + tail + checked(payload if version == 4 else full)
    if proto in (4, 41):
        return "ip %s > %s proto %d%s | %s" % (a, b, proto, tail, decode(payload, partial))
    if proto == 47:
        flags, ethertype = struct.unpack("!HH", payload[:4])
        hlen = 4 + 4 * bin(flags & 0xb000).count("1")
        return "ip %s > %s gre %s%s%s | %s" % (a, b, payload[:hlen].hex(), tail,
                                               checked(payload) if flags & 0x8000 else "",
                                               decode(payload[hlen:], partial))
    return "ip %s > %s proto %d data %d%s" % (a, b, proto, len(payload), tail)


def mac(raw):
    return ":".join("%02x" % b for b in raw)


def decode_frame(frame):
    """A one-line description of an Ethernet frame."""
    ethertype = struct.unpack("!H", frame[12:14])[0]
    body = decode(frame[14:]) if ethertype in (0x800, 0x86dd) else "type 0x%04x" % ethertype
    return "%s > %s %s" % (mac(frame[6:12]), mac(frame[:6]), body)
