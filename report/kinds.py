"""A difference of traffic in words that do not depend on the host, the address family, the size or the interface.

A kind is a direction and a topic, `more: tcp S`, `higher: counter Tcp.RetransSegs`, `gone: log IPv6: IFACE: link becomes ready`, or
a cell of a table, in whichever rows, with what it showed on both kernels, `cell: tcp.segments, SYN: RST -> nothing`.
changes.toml and chance.json name differences by these words.
"""
import re
from typing import NamedTuple

from report import traffic
from report.traffic import SECONDS

CELL, PACKET, FORM, TIME, COUNTER, LOG = range(6)     # most significant first
MIRRORED = {"more": "fewer", "higher": "lower", "later": "earlier", "new": "gone", "other form": "other form", "reworded": "reworded",
            "cell": "cell"}
MIRRORED |= {back: there for there, back in MIRRORED.items()}
# The host and the control plane decide when a test's commands run; the shortest timers that tests wait for are longer.
SHORTEST = 0.5                              # seconds
EVENT = "an event at "                      # begins the topic of what epoll reports of a socket (explore.observation)
_INTERFACE = re.compile(r"\bto-[\w-]+|\b(eth|tun|tap|veth|vxlan|gre|ipip|sit|ip6tnl|lo|dummy|br|bond)#")
_LAYER = re.compile(r"ipv[46] ttl \d+ tos 0x[0-9a-f]+(?: DF)?")
_SIZES = re.compile(r",? (?:\d+ bytes|len \d+|seq (?:-?\d+|before it began)|ack (?:-?\d+|before it began)|window \d+"
                    r"|mss \d+|option \d+|options of \d+|mtu \d+|parameter 0x[0-9a-f]+|without an echo)")
_DIGITS = re.compile(r"\d+")
_WORDS = {"more": "more packets are sent: {}", "fewer": "fewer packets are sent: {}", "later": "a packet is sent later: {}",
          "earlier": "a packet is sent earlier: {}", "other form": "packets differ in: {}",
          "higher": "{} is higher", "lower": "{} is lower"}
_LOGGED = {"new": "the kernel now logs '{}'", "gone": "the kernel no longer logs '{}'", "more": "the kernel logs '{}' more often",
           "fewer": "the kernel logs '{}' less often"}


class Move(NamedTuple):
    """A difference in one test: `rank` is one of the above, `by` the amount, in packets, units of the counter, lines, or seconds."""

    test: str
    rank: int
    topic: str
    direction: str
    by: float
    text: str

    @property
    def kind(self) -> str:
        return f"{self.direction}: {self.topic}"

    @property
    def vocabulary(self) -> bool:
        """Whether only one of the kernels has the counter or the line at all."""
        return self.direction in ("new", "gone", "reworded")


def topic(name: str) -> tuple[int, str]:
    """The rank and the topic of a name from report.traffic.numbers()."""
    if name.startswith(traffic.CELL):
        return CELL, name.removeprefix(traffic.CELL)
    if name.startswith("the kernel logs: "):
        if " logs: audit: type=" in name:
            return LOG, "log audit: a record"
        return LOG, "log " + _INTERFACE.sub("IFACE", name.removeprefix("the kernel logs: "))
    # A foreign file may have any name.
    verb, _, what = name.partition(" ")[2].partition(" ")
    if verb == "counts":
        return COUNTER, f"counter {what.partition(' on ')[0]}"
    return (TIME, noun(what.removesuffix(SECONDS))) if what.endswith(SECONDS) else (PACKET, noun(what))


def noun(packet: str) -> str:
    """A packet without its address family and its sizes: `tcp SA`, `icmp 3/4 about udp`, `tcp data`."""
    data = re.search(r" len [1-9]", packet)
    short = _SIZES.sub("", _LAYER.sub("", packet))
    short = " ".join(re.sub(r"fragment \d+", "fragment", short).split())
    return re.sub(r"tcp P?A$", "tcp data", short) if data else short


def fields(packet: str) -> tuple[str, tuple[str, ...]]:
    """A packet's words with its numbers taken out, and the numbers: two forms of a packet differ only in these."""
    return _DIGITS.sub("#", packet), tuple(_DIGITS.findall(packet))


def words(kind: str) -> str:
    """A kind as a sentence."""
    direction, what = kind.split(": ", 1)
    if direction == "cell":
        return what
    if direction == "reworded":
        return "the kernel now logs '{}' instead of '{}'".format(*what.removeprefix("log ").split(", was ", 1))
    if what.startswith("log "):
        return _LOGGED[direction].format(what.removeprefix("log "))
    if direction in ("new", "gone"):
        return f"{what} is {direction}"
    if what.startswith(EVENT):
        return f"{what} comes {direction}"
    return _WORDS[direction].format(what)


def column_of(kind: str) -> str | None:
    """The column of the table's cell that a kind is about; None for other kinds."""
    direction, what = kind.split(": ", 1)
    return what.partition(": ")[0].partition(", ")[2] if direction == "cell" else None


def mirrored(kind: str) -> str:
    """The same change in the other direction."""
    direction, what = kind.split(": ", 1)
    if direction == "reworded":
        new, _, old = what.removeprefix("log ").partition(", was ")
        return f"reworded: log {old}, was {new}"
    if direction == "cell":
        where, _, seen = what.partition(": ")
        was, _, now = seen.partition(" -> ")
        return f"cell: {where}: {now} -> {was}"
    return f"{MIRRORED[direction]}: {what}"
