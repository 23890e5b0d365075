"""Netlink messages and their attributes, packed and unpacked. Source: netlink(7), include/uapi/linux/netlink.h."""

import os
import socket
import struct
from collections.abc import Iterator

from pyroute2.netlink import NLMSG_DONE, NLMSG_ERROR

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


def dumped(netlink: socket.socket) -> Iterator[bytes]:
    """The body of each message of a dump that was asked for. Raises OSError with the kernel's errno where it refuses."""
    while True:
        datagram = netlink.recv(1 << 16)
        while datagram:
            length, kind, *_rest = HEADER.unpack_from(datagram)
            body, datagram = datagram[HEADER.size:length], datagram[(length + 3) & ~3:]
            if kind in (NLMSG_DONE, NLMSG_ERROR):
                (negative,) = struct.unpack_from("=i", body)
                if negative:
                    raise OSError(-negative, os.strerror(-negative))
                return
            yield body
