"""Scenario files: text -> plan (a plain dict, the JSON that `compile` prints).

The file format and the plan are documented in ../README.md.
"""
import ipaddress
import os
import re
import shlex

import packet

TOPOLOGIES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "topologies")
STRANGER = "02:00:00:00:99:99"     # source MAC of a sender that is nobody's neighbour


def load(path):
    """The plan of the scenario file at path."""
    with open(path) as file:
        lines = file.read().split("\n")
    plan = {"name": os.path.splitext(os.path.basename(path))[0], "title": "", "tags": [],
            "modules": [], "interfaces": [], "neighbours": [], "routes": [], "marks": [],
            "diverts": [], "steps": []}
    try:
        for line in _unroll(_clean(lines)):
            _line(plan, line)
    except (ValueError, KeyError, IndexError, StopIteration) as error:
        raise SystemExit("%s: %s: %r" % (path, type(error).__name__, error.args)) from error
    return plan


def _clean(lines):
    """lines without comments, blanks and indentation."""
    for line in lines:
        line = line.strip()
        if line and not line.startswith("#"):
            yield line


def _unroll(lines):
    """lines with every 'for NAME A-B ... end' written out."""
    lines = list(lines)
    while lines:
        line = lines.pop(0)
        if not line.startswith("for "):
            yield line
            continue
        _, name, span = line.split()
        low, high = map(int, span.split("-"))
        body, depth = [], 1
        while True:
            line = lines.pop(0)
            depth += line.startswith("for ") - (line == "end")
            if not depth:
                break
            body.append(line)
        for value in range(low, high + 1):
            yield from _unroll(_substitute(text, name, value) for text in body)


def _substitute(text, name, value):
    """text with $name, ${name} and ${name+N} replaced by numbers."""
    def number(match):
        return str(value + int(match[2] or match[3] or 0))
    return re.sub(r"\$(?:\{%s([+](\d+)|(-\d+))?\}|%s\b)" % (name, name), number, text)


def _line(plan, line):
    word, _, rest = line.partition(" ")
    if word == "title":
        plan["title"] = rest
    elif word == "tags":
        plan["tags"] = rest.split()
    elif word == "topology":
        with open(os.path.join(TOPOLOGIES, rest)) as file:
            for inner in _clean(file):
                _line(plan, inner)
    elif word == "module":
        name, _, parameters = rest.partition(" ")
        plan["modules"].append({"name": name, "parameters": parameters})
    elif word == "if":
        _interface(plan, rest.split())
    elif word == "neigh":
        _neighbours(plan, *rest.split())
    elif word == "route":
        prefix, *pairs = rest.split()
        plan["routes"].append({"prefix": prefix, **dict(zip(pairs[::2], pairs[1::2]))})
    elif word == "mark":
        mark, proto, dst, *port = rest.split()
        plan["marks"].append({"mark": int(mark), "proto": proto, "dst": dst,
                              "port": int(port[0]) if port else None})
    elif word == "divert":
        plan["diverts"].append(int(rest))
    elif word == "|":
        plan["steps"][-1]["stdin"] += rest + "\n"
    else:
        step = {"n": len(plan["steps"]) + 1, "text": line}
        if word == "?":
            word, _, rest = rest.partition(" ")
        step.update(_step(plan, step["n"], word, rest))
        plan["steps"].append(step)


def _step(plan, number, word, rest):
    if word == "ipvsadm":
        return {"do": "ipvsadm", "args": shlex.split(rest), "stdin": ""}
    if word == "sleep":
        return {"do": "sleep", "seconds": float(rest)}
    if word == "sysctl":
        key, value = rest.split("=", 1)
        return {"do": "sysctl", "key": key.strip(), "value": value.strip()}
    if word == ">":
        name, _, text = rest.partition(" ")
        return {"do": "inject", "if": name, "frame": _frame(plan, name, text, number).hex()}
    raise ValueError("unknown line: %s %s" % (word, rest))


def _interface(plan, words):
    interface = {"name": words[0], "mac": None, "mtu": 1500, "addresses": []}
    words = words[1:]
    while words:
        word = words.pop(0)
        if word == "mtu":
            interface["mtu"] = int(words.pop(0))
        elif "/" in word:
            interface["addresses"].append(word)
        else:
            interface["mac"] = word
    old = [i for i in plan["interfaces"] if i["name"] == interface["name"]]
    if not old:                                  # a second line adds to the first
        plan["interfaces"].append(interface)
        return
    old[0]["addresses"] += interface["addresses"]
    old[0]["mac"] = interface["mac"] or old[0]["mac"]
    old[0]["mtu"] = interface["mtu"]


def _neighbours(plan, name, address, mac):
    """neigh IF ADDRESS MAC; a last part like 11-18 stands for eight neighbours
    whose MACs count up from MAC."""
    head, low, high = re.fullmatch(r"(.*[.:])(\w+)(?:-(\w+))?", address).groups()
    base = 16 if ":" in head else 10
    first = int(mac.replace(":", ""), 16)
    for i in range(int(high or low, base) - int(low, base) + 1):
        last = "%x" % (int(low, 16) + i) if base == 16 else str(int(low) + i)
        plan["neighbours"].append({"if": name, "ip": head + last, "mac": packet.mac(
            (first + i).to_bytes(6, "big"))})


def _frame(plan, name, text, number):
    """The Ethernet frame that text describes, sent to interface name."""
    if text.startswith("raw "):
        return bytes.fromhex(text[4:].replace(" ", ""))
    text, _, tail = text.partition(" dmac ")
    body = packet.build(text, 4096 + number)
    mine = next(i["mac"] for i in plan["interfaces"] if i["name"] == name)
    source = ipaddress.ip_address(body[12:16] if body[0] >> 4 == 4 else body[8:24])
    ethertype = b"\x08\x00" if body[0] >> 4 == 4 else b"\x86\xdd"
    macs = [tail.strip() or mine, _sender(plan, source)]
    return b"".join(bytes.fromhex(m.replace(":", "")) for m in macs) + ethertype + body


def _sender(plan, source):
    """The MAC a packet from source comes from: its own or its router's."""
    hops = [str(source)]
    hops += [route["via"] for route in plan["routes"] if "via" in route
             and route["prefix"] != "default" and source in ipaddress.ip_network(route["prefix"])]
    for hop in hops:
        for neighbour in plan["neighbours"]:
            if neighbour["ip"] == hop:
                return neighbour["mac"]
    return STRANGER
