"""The packets that the kernel drops, and why, from its own tracepoint; read only on demand."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from netns.errors import missing_feature

TRACEFS = Path("/sys/kernel/tracing")
# About 500 drops; newer ones overwrite older ones.
_BUFFER_KIB = 128
_EVENT = re.compile(r"\s(\d+\.\d+): kfree_skb: .*?protocol=(\d+) .*?(?:reason: (\w+))?$")
_OVERWRITTEN = re.compile(r"entries-in-buffer/entries-written: (?!(\d+)/\1\b)")
# The top of each stack: the tracepoint and the functions that free.
_FREEING = re.compile(r"trace_event_raw_event_|\w*kfree_skb|\w*skb_reason_drop")
# The callers of these belong to the sender of the packet.
_RECEIVED = ("__netif_receive_skb", "netif_receive_skb")
_SENT = ("__dev_queue_xmit", "dev_hard_start_xmit")
# include/net/dropreason-core.h: the reasons that mean no drop.
_NO_DROP = ("CONSUMED", "NOT_DROPPED_YET")
# Multicast to a group that the host has not joined, such as an MLD report from another host.
_NOT_ADDRESSED = "ip6_mc_input"
_PROTOCOLS = {0x0800: "IPv4", 0x0806: "ARP", 0x86DD: "IPv6"}


@dataclass(frozen=True)
class Drop:
    """A dropped packet. `time` is CLOCK_MONOTONIC in seconds, `protocol` an EtherType, `reason` a name from
    include/net/dropreason-core.h or None (kernels before 5.17), `functions` the function that dropped it and its callers,
    innermost first, up to where the packet was received or sent; `received` is true on the receive path."""

    time: float
    protocol: int
    reason: str | None
    functions: tuple[str, ...]
    received: bool

    def __str__(self) -> str:
        reason = f"{self.reason} in " if self.reason else ""
        protocol = _PROTOCOLS.get(self.protocol, f"protocol {self.protocol:#06x}")
        return f"{protocol}, {reason}{' < '.join(self.functions)}"


class DropLog:
    """Records skb:kfree_skb of the whole machine, from now on, in its own tracefs instance.

    Packets without an EtherType are left out: they are messages between the kernel and its processes.
    Raises MissingFeature if tracefs cannot be used. Source: Documentation/trace/ftrace.rst, "Instances".
    """

    def __init__(self, name: str) -> None:
        self._instance = TRACEFS / "instances" / name
        try:
            self._instance.mkdir()
            for file, value in (
                ("trace_clock", "mono"), ("buffer_size_kb", _BUFFER_KIB), ("options/stacktrace", 1),
                ("events/skb/kfree_skb/filter", "protocol != 0"), ("events/skb/kfree_skb/enable", 1),
            ):
                (self._instance / file).write_text(str(value))
        except OSError as error:
            raise missing_feature("tracefs", error) from error

    def since(self, began: float) -> tuple[list[Drop], bool]:
        """The drops since `began` (CLOCK_MONOTONIC, seconds), oldest first, and whether the buffer has overwritten earlier
        ones."""
        text = (self._instance / "trace").read_text()
        drops = list(parse(text))
        overwritten = bool(_OVERWRITTEN.search(text)) and (not drops or drops[0].time > began)
        return [drop for drop in drops if drop.time >= began], overwritten


def parse(text: str) -> Iterator[Drop]:
    """The drops in the text of a buffer of kfree_skb events with stack traces.

    Source: Documentation/trace/ftrace.rst, "Output format"; include/trace/events/skb.h.
    """
    event, stack = None, []
    for line in [*text.splitlines(), "end"]:
        if line.startswith(" => "):
            stack.append(line.removeprefix(" => ").split()[0])
        elif not line.endswith("<stack trace>"):
            if event and event[3] not in _NO_DROP:
                functions, received = _path(stack)
                if functions[:1] != (_NOT_ADDRESSED,):
                    yield Drop(float(event[1]), int(event[2]), event[3], functions, received)
            event, stack = _EVENT.search(line), []


def _path(stack: list[str]) -> tuple[tuple[str, ...], bool]:
    start = next((index for index, name in enumerate(stack) if not _FREEING.match(name)), 0)
    path = []
    for name in stack[start:]:
        if name.startswith(_RECEIVED):
            return tuple(path), True
        path.append(name)
        if name.startswith(_SENT):
            break
    return tuple(path), False
