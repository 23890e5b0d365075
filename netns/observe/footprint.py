"""A host's footprint: the packets that it sent, and its counters; collected in milliseconds, evaluated elsewhere."""

import base64
import struct
import zlib

from netns.hosts.host import Host
from netns.observe.counters import Counters, nonzero_of_host

_OUTGOING = 4
# Enough for IPv6 with the quote in an ICMPv6 error, and for the headers in a tunnel.
_LONGEST = 128
# Nanoseconds since the epoch, length on the wire, bytes kept, and whether the checksum was left to the interface.
FRAME = struct.Struct("<QIH?")


def footprint(host: Host) -> dict:
    """{"frames": the packets sent on its links, packed, "counters": the nonzero ones}; see report.traffic. No frames if
    the ring has lost some."""
    frames = base64.b64encode(zlib.compress(_frames(host), 1)).decode()
    return {"frames": frames, "counters": nonzero_of_host(dict(_counters(host)))}


def unread(host: Host, first: int = 0) -> dict:
    """The same in half the time, of the packets from number `first` on: {"frames": not compressed, "texts": by place what the kernel says
    of its counters}, which counters.nonzero_of_host() parses on a faster machine."""
    return {"frames": base64.b64encode(_frames(host, first)).decode(), "texts": {where: read.texts for where, read in _counters(host)}}


def _frames(host: Host, first: int = 0) -> bytes:
    host.ring.drain()
    if host.ring.lost:
        return b""
    links = {interface.index for interface in host.interfaces.values()}
    pack = FRAME.pack
    return b"".join([
        pack(frame.nanoseconds, frame.length, min(len(frame.data), _LONGEST), frame.unfinished) + frame.data[:_LONGEST]
        for frame in host.ring.frames[first:] if frame.direction == _OUTGOING and frame.interface in links
    ])


def _counters(host: Host) -> list[tuple[str, Counters]]:
    """The host's, at the place "", and those of each interface."""
    with host.entered():
        return [("", Counters.read()), *((f" on {each.name}", Counters.read_interface(each.name)) for each in host.interfaces.values())]
