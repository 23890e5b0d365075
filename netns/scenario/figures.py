"""What a scenario showed as figures with plain names: a test of one scenario says of each what it must be."""

import base64
import re
from collections.abc import Iterator, Mapping

from netns.observe.counters import Counters, nonzero_of_host
from netns.observe.footprint import FRAME
from netns.packets.packet import Frame, Packet

_OUTGOING = 4
_NEIGHBOURS = range(130, 138)               # MLD and neighbour discovery come when they like: RFC 2710, RFC 4861
_NUMBER = re.compile(r"\b(0x)?[0-9a-f]*[0-9][0-9a-f]*\b")
ENDED = "the machine"
AT = " at"                                  # suffix of a figure that is a time
Figures = dict[str, object]


def figures(seen: Mapping) -> Figures:
    """By name: results and errnos of steps, numbered from 1; events and, in seconds, their times; what is left of sockets and routes;
    packets that each host sent; counters that are not 0; and lines of the kernel's log. `seen` is of netns.scenario.run.observe(),
    or says how the machine ended."""
    if "ended" in seen:
        return {ENDED: seen["ended"]}
    found: Figures = {f"step {number}": result for number, (result, _at) in enumerate(seen["steps"], 1)}
    count: dict[str, int] = {}
    for name, events, at in seen["events"]:
        count[name] = count.get(name, 0) + 1
        found[f"event {count[name]} of {name}"] = events
        found[f"event {count[name]} of {name}{AT}"] = at
    for name, left in seen["sockets"].items():
        found.update((f"{what} of {name}", value) for what, value in left.items())
    for role, listed in seen["routes"].items():
        found[f"routes of {role}"] = "; ".join(sorted(listed)) or "none"
    for role, listed in seen.get("tracked", {}).items():
        found[f"connections tracked by {role}"] = "; ".join(listed) or "none"
    for role, host in seen["hosts"].items():
        for packet in _packets(host["frames"]):
            if what := _words(packet):
                name = f"{role} sends {what}"
                found[name] = found.get(name, 0) + 1
        parsed = nonzero_of_host({where: Counters.parsed(texts) for where, texts in host["texts"].items()})
        found.update((f"{role} counts {name}", value) for name, value in parsed.items())
    for line in seen["log"]:
        name = f"the kernel logs: {_NUMBER.sub('#', line)}"
        found[name] = found.get(name, 0) + 1
    return found


def unlike(expected: Mapping[str, object], found: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """The figures that are not as expected, (expected, found) by name. One that is not there counts as None; a time may differ by what the
    kernel's timers round."""
    return {name: (value, found.get(name)) for name, value in expected.items() if not _alike(name, value, found.get(name))}


def _alike(name: str, one: object, other: object) -> bool:
    if name.endswith(AT) and one is not None and other is not None:
        return abs(one - other) <= 0.05 + 0.15 * min(one, other)
    return one == other


def _packets(frames: str) -> Iterator[Packet]:
    data, at = base64.b64decode(frames), 0
    while at < len(data):
        nanoseconds, length, kept, unfinished = FRAME.unpack_from(data, at)
        at += FRAME.size
        yield Packet(Frame(nanoseconds, 0, _OUTGOING, length, data[at:at + kept], unfinished), "")
        at += kept


def _words(packet: Packet) -> str:
    """Protocol and kind: `tcp SA window 65160`, `icmp 3/1`; "" for what is not compared."""
    if packet.segment:
        ends = set(packet.segment.flags) & set("SFR")
        return f"tcp {packet.segment.flags}" + (f" window {packet.window}" if ends else "")
    if packet.icmp and len(packet.icmp) >= 2:
        kind, code = packet.icmp[:2]
        return "" if packet.protocol == "icmpv6" and kind in (*_NEIGHBOURS, 143) else f"{packet.protocol} {kind}/{code}"
    return packet.protocol or ""
