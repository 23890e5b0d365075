"""A host's footprint: the packets that it sent, and its counters; collected in milliseconds, evaluated elsewhere."""

import base64
import struct
import zlib

from netns.hosts.host import Host
from netns.observe.counters import Counters

_OUTGOING = 4
# Enough for IPv6 with the quote in an ICMPv6 error, and for the headers in a tunnel.
_LONGEST = 128
# Nanoseconds since the epoch, length on the wire, bytes kept, and whether the checksum was left to the interface.
FRAME = struct.Struct("<QIH?")
# The socket counters that are per namespace.
_OWN = ("inuse", "orphan", "tw")


def footprint(host: Host) -> dict:
    """{"frames": the packets sent on its links, packed, "counters": the nonzero ones}; see report.traffic. No frames if
    the ring has lost some."""
    host.ring.drain()
    links = {interface.index for interface in host.interfaces.values()}
    pack = FRAME.pack
    frames = b"".join([
        pack(frame.nanoseconds, frame.length, min(len(frame.data), _LONGEST), frame.unfinished) + frame.data[:_LONGEST]
        for frame in host.ring.frames if frame.direction == _OUTGOING and frame.interface in links
    ]) if not host.ring.lost else b""
    with host.entered():
        read = {"": Counters.read()} | {f" on {each.name}": Counters.read_interface(each.name) for each in host.interfaces.values()}
    counters = {
        name + where: value for where, part in read.items() for name, value in part.nonzero().items()
        if not name.startswith("sockstat") or name.endswith(_OWN)
    }
    return {"frames": base64.b64encode(zlib.compress(frames, 1)).decode(), "counters": counters}
