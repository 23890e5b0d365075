"""What a host has done: the packets that it sent, and its counters; gathered in a millisecond, and read by somebody else."""

import base64
import os
import struct
import zlib
from functools import cache

from .host import Host

_OUTGOING = 4
# Enough for IPv6 with an ICMPv6 error's quote, and for the headers in a tunnel.
_LONGEST = 128
# Nanoseconds since the epoch, length on the wire, bytes kept.
FRAME = struct.Struct("<QIH")
_DIRECTORY = "/proc/thread-self/net"


def footprint(host: Host) -> dict:
    """{"frames": the packets that it sent on its links, packed, "counters": those that are not 0}; see report.traffic.
    No frames where the ring has lost some."""
    host.ring.drain()
    links = {interface.index for interface in host.interfaces.values()}
    pack = FRAME.pack
    frames = b"".join([
        pack(frame.nanoseconds, frame.length, min(len(frame.data), _LONGEST)) + frame.data[:_LONGEST]
        for frame in host.ring.frames if frame.direction == _OUTGOING and frame.interface in links
    ]) if not host.ring.lost else b""
    with host.entered():
        counters = {**_table("snmp"), **_table("netstat"), **_list("snmp6"), **_list("xfrm_stat"), **_sockets()}
    return {"frames": base64.b64encode(zlib.compress(frames, 1)).decode(), "counters": counters}


def _table(name: str) -> dict[str, int]:
    lines = _read(name).splitlines()
    return {
        key: int(value) for names, values in zip(lines[::2], lines[1::2])
        for key, value in zip(_columns(names), values.split()[1:]) if value != b"0"
    }


@cache
def _columns(line: bytes) -> list[str]:
    group, *columns = line.decode().split()
    return [group.replace(":", ".") + column for column in columns]


def _list(name: str) -> dict[str, int]:
    return {
        key.decode(): int(value) for key, value in (line.split() for line in _read(name).splitlines()) if value != b"0"
    }


def _sockets() -> dict[str, int]:
    """Those of the host's own; memory is counted for all hosts together."""
    counters = {}
    for name in ("sockstat", "sockstat6"):
        for line in _read(name).splitlines():
            group, *pairs = line.decode().split()
            counters |= {
                f"{name}.{group[:-1]}.{key}": int(value)
                for key, value in zip(pairs[::2], pairs[1::2]) if key in ("inuse", "orphan", "tw") and value != "0"
            }
    return counters


def _read(name: str) -> bytes:
    """Without pathlib and text layers, which take longer than the kernel."""
    try:
        descriptor = os.open(f"{_DIRECTORY}/{name}", os.O_RDONLY)
    except FileNotFoundError:
        return b""
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)
