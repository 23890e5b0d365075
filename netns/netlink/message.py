"""Netlink messages and their attributes, packed and unpacked. Source: netlink(7), include/uapi/linux/netlink.h."""

import struct
from collections.abc import Iterator

HEADER = struct.Struct("=IHHII")                # nlmsghdr: length, type, flags, sequence, port id
_ATTRIBUTE = struct.Struct("=HH")
_NESTED, _TYPE_MASK = 1 << 15, (1 << 14) - 1


def message(kind: int, flags: int, body: bytes, sequence: int = 0) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def attribute(kind: int, data: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)


def nest(kind: int, *inner: bytes) -> bytes:
    """An attribute that contains attributes, with NLA_F_NESTED."""
    return attribute(kind | _NESTED, b"".join(inner))


def attributes(body: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Type, without its flags, and value of each attribute from offset `at` on."""
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        yield kind & _TYPE_MASK, body[at + _ATTRIBUTE.size:at + length]
        at += (length + 3) & ~3
