"""Result files: annotating them for people, and comparing two of them.

The format, and what a comparison disregards, are documented in ../README.md.
"""
import re

import packet

EXPIRE_SLACK = 3                   # seconds, in `ipvsadm -L -c`, and what the run was late
RATE_SLACK = 0.5                   # of the greater number, in `ipvsadm -L --rate`


# ---------------------------------------------------------------- reading

def parse(text):
    """The steps of a result: a list of dicts."""
    steps = []
    for line in text.splitlines():
        mark, _, rest = line.partition(" ")
        if mark == "@":
            number, _, words = rest.partition(" ")
            steps.append({"n": int(number), "text": words, "rc": None, "late": 0,
                          "out": [], "err": [], "packets": []})
        elif mark == "late":
            steps[-1]["late"] = float(rest)
        elif mark == "rc":
            steps[-1]["rc"] = int(rest)
        elif mark in ("|", "!"):
            steps[-1]["out" if mark == "|" else "err"].append(rest)
        elif mark == "<":
            interface, frame = rest.split()
            steps[-1]["packets"].append({"if": interface, "frame": bytes.fromhex(frame),
                                         "any": set()})
        elif mark == "~":
            steps[-1]["packets"][-1]["any"] |= set(rest.split())
    return steps


def annotate(text, plan):
    """text made ready to be kept: arbitrary fields of packets named and set to 0,
    a description of each packet added, listed connections sorted."""
    injected = {step["n"]: bytes.fromhex(step["frame"])
                for step in plan["steps"] if step["do"] == "inject"}
    lines, cause, entries = [], b"", None
    for line in text.splitlines() + ["@ 0"]:
        if entries is not None and not line.startswith("| "):
            lines += sorted(entries, key=lambda entry: _entry_key(entry[2:]))
            entries = None
        if line.startswith("@ "):
            cause = injected.get(int(line.split()[1]), b"")
        if line.startswith("< "):
            mark, interface, frame = line.split()
            frame = bytes.fromhex(frame)
            fields = arbitrary(frame, cause)
            frame = neutral(frame, fields)
            lines.append("%s %s %s" % (mark, interface, frame.hex()))
            if fields:
                lines.append("~ " + " ".join(fields))
            lines.append("  " + packet.decode_frame(frame))
        elif entries is not None:
            entries.append(line)
        else:
            lines.append(line)
            if line.startswith("| pro expire"):
                entries = []
    return "\n".join(lines[:-1]) + "\n"


def lasting(text):
    """text less what only its run was about."""
    return re.sub(r"(?m)^late .*\n", "", text)


def arbitrary(frame, cause):
    """The fields of frame that the kernel chose at random, cause having arrived."""
    kind, fields = frame[12:14], []
    if kind == b"\x08\x00":
        if frame[18:20] not in (cause[18:20], b"\0\0"):
            fields.append("ipid")
        if frame[23] == 17 and frame[36:38] == b"\x17\xc0" and cause[34:38] != frame[34:38]:
            fields.append("gueport")
    elif kind == b"\x86\xdd" and frame[20] == 44 and frame[58:62] != cause[58:62]:
        fields.append("fragid")
    elif kind == b"\x86\xdd" and frame[20] == 17 and frame[56:58] == b"\x17\xc0":
        fields.append("gueport")
    return fields


def neutral(frame, fields):
    """frame with arbitrary fields 0. Checksums over them are updated, so that
    what was right stays right, and what was wrong wrong."""
    frame = bytearray(frame)
    udp = 14 + ((frame[14] & 15) * 4 if frame[14] >> 4 == 4 else 40)

    def clear(at, total):
        """Set the 16 bits at offset at to 0, updating the checksum at offset total."""
        old, check = (int.from_bytes(frame[i:i + 2], "big") for i in (at, total))
        check = (~check & 0xffff) + (~old & 0xffff)
        check = ~((check & 0xffff) + (check >> 16)) & 0xffff
        frame[at:at + 2], frame[total:total + 2] = b"\0\0", check.to_bytes(2, "big")

    if "ipid" in fields and frame[18:20] != b"\0\0":
        clear(18, 24)
    if "gueport" in fields and frame[udp:udp + 2] != b"\0\0":
        if frame[udp + 6:udp + 8] == b"\0\0":             # no checksum
            frame[udp:udp + 2] = b"\0\0"
        else:
            clear(udp, udp + 6)
    if "fragid" in fields:
        frame[58:62] = bytes(4)
    return bytes(frame)


# ---------------------------------------------------------------- comparing

def compare(expected, actual):
    """The differences of two results, as lines for people; none if they agree."""
    differences = []
    theirs = {step["n"]: step for step in parse(actual)}
    for step in parse(expected):
        other = theirs.pop(step["n"], None)
        if other is None:
            found = ["step missing"]
        elif step["text"].startswith("? "):
            found = []
        else:
            found = _compare_step(step, other)
        if found:
            differences += ["  @ %d %s" % (step["n"], step["text"])] + ["    " + f for f in found]
    return differences + ["  @ %d: no such step expected" % n for n in theirs]


def _compare_step(step, other):
    found = []
    if step["rc"] != other["rc"]:
        found.append("rc: expected %s, got %s" % (step["rc"], other["rc"]))
    for name in ("out", "err"):
        mine, yours = normal_text(step[name]), normal_text(other[name])
        if not same_lines(mine, yours, EXPIRE_SLACK + max(0, other["late"])):
            found += ["expected %s: %s" % (name, line) for line in mine]
            found += ["     got %s: %s" % (name, line) for line in yours]
    for interface in sorted({p["if"] for p in step["packets"] + other["packets"]}):
        mine = [p for p in step["packets"] if p["if"] == interface]
        yours = [p for p in other["packets"] if p["if"] == interface]
        pairs = [(neutral(p["frame"], p["any"]), neutral(y["frame"], p["any"]))
                 for p, y in zip(mine, yours)]
        if len(mine) != len(yours) or any(a != b for a, b in pairs):
            for word, packets in (("expected", mine), ("     got", yours)):
                found += ["%s on %s: %s" % (word, interface, packet.decode_frame(p["frame"]))
                          for p in packets] or ["%s on %s: nothing" % (word, interface)]
            for a, b in pairs:
                found += differing_bytes(a, b)
    return found


def differing_bytes(mine, yours):
    """Where two frames of one length differ, as a line for people."""
    places = [i for i in range(len(mine)) if mine[i:i + 1] != yours[i:i + 1]]
    if len(mine) != len(yours) or not places:
        return []
    low, high = places[0], min(places[-1], places[0] + 15)
    return ["bytes %d-%d of the frame: expected %s, got %s" % (
        low, high, mine[low:high + 1].hex(), yours[low:high + 1].hex())]


def normal_text(lines):
    """What ipvsadm printed, less what may differ."""
    lines = [re.sub(r"\bripvsadm\b", "ipvsadm", line.rstrip()) for line in lines]
    lines = [re.sub(r"\(size=\d+\)", "(size=N)", line) for line in lines]
    lines = [re.sub(r"^ipvsadm v.*", "ipvsadm VERSION", line) for line in lines]
    if lines and lines[0].startswith("IPVS connection entries"):
        entries = {_entry_key(line): line for line in lines[2:]}
        lines = lines[:2] + [entries[key] for key in sorted(entries)]
    if any(line.startswith("Usage:") for line in lines):
        lines = lines[:1]
    return lines


def _entry_key(line):
    """A listed connection less its time to live."""
    words = line.split()
    return tuple(words[:1] + words[2:])


def same_lines(mine, yours, slack):
    """Whether two normal texts agree, times to live within slack, rates within theirs."""
    rates = any(" CPS " in line for line in mine)
    return len(mine) == len(yours) and all(
        a == b or _same_entry(a, b, slack) or rates and _same_rates(a, b) for a, b in zip(mine, yours))


def _same_entry(mine, yours, slack):
    """Listed connections whose times to live differ by no more than slack seconds."""
    times = [re.fullmatch(r"\w+ +(\d+):(\d\d) .*", line) for line in (mine, yours)]
    if not all(times) or _entry_key(mine) != _entry_key(yours):
        return False
    first, second = (60 * int(time[1]) + int(time[2]) for time in times)
    return abs(first - second) <= slack


def _same_rates(mine, yours):
    """Lines of --rate whose numbers differ by no more than RATE_SLACK."""
    mine, yours = mine.split(), yours.split()
    return len(mine) == len(yours) and all(
        a == b or a.isdigit() and b.isdigit()
        and abs(int(a) - int(b)) <= max(2, RATE_SLACK * max(int(a), int(b)))
        for a, b in zip(mine, yours))
