"""Replays a plan against a backend and writes the result text.

A backend is any object with
    setup(plan)                  make the load balancer ready, with no service yet
    ipvsadm(args, stdin)         -> (exit status, stdout, stderr)
    sysctl(key, value)           raises OSError if there is no such setting
    time()                       the moment, in seconds
    sleep(seconds)               that much time passes
    inject(interface, frame)     frame arrives at the load balancer
    drain()                      -> [(interface, frame)] sent since the last call,
                                 once the load balancer is done with all it got
ripvsd.py has the one for ripvsd; ../README.md describes plan and result.
"""
import struct


def replay(plan, backend, write):
    """Run every step of plan, handing the lines of the result to write."""
    backend.setup(plan)
    backend.drain()
    write("scenario %s\n" % plan["name"])
    begun, asleep = backend.time(), 0
    for step in plan["steps"]:
        write("@ %d %s\n" % (step["n"], step["text"]))
        if step["do"] == "ipvsadm":
            status, out, err = backend.ipvsadm(step["args"], step["stdin"])
            write("late %.1f\n" % (backend.time() - begun - asleep))
            write("rc %d\n" % status)
            for mark, text in (("|", out), ("!", err)):
                for line in text.splitlines():
                    write("%s %s\n" % (mark, line))
        elif step["do"] == "inject":
            backend.inject(step["if"], bytes.fromhex(step["frame"]))
        elif step["do"] == "sysctl":
            try:
                backend.sysctl(step["key"], step["value"])
            except OSError as error:
                write("! %s\n" % error.strerror)
        elif step["do"] == "sleep":
            asleep += step["seconds"]
            backend.sleep(step["seconds"])
        else:
            raise ValueError("step %d: nothing here can do %r" % (step["n"], step["do"]))
        for interface, frame in backend.drain():
            if not is_noise(frame):
                write("< %s %s\n" % (interface, frame.hex()))


def is_noise(frame):
    """Address resolution and group membership: no part of a result."""
    ethertype, = struct.unpack("!H", frame[12:14])
    if ethertype == 0x800:
        return frame[23] == 2                              # IGMP
    if ethertype == 0x86dd:
        if frame[20] == 0 and frame[54] == 58:             # MLD, behind hop-by-hop
            return frame[62] in (130, 131, 132, 143)
        return frame[20] == 58 and 133 <= frame[54] <= 137  # ND
    return True                                            # ARP and the like
