"""ICMP errors with extensions, as routers with MPLS send them (RFC 4884), and what a socket reads of them."""

import socket
import struct

import pytest

from fixtures.icmp_errors import TIME_EXCEEDED, V4
from fixtures.topologies import ROUTED
from netns import MissingFeature
from netns.packets import errqueue, icmp
from netns.packets.icmp import checksum
from netns.packets.probe import set_ttl

pytestmark = pytest.mark.topology(ROUTED)

EXTENSION_MASK = {V4: "net.ipv4.icmp_errors_extension_mask", socket.AF_INET6: "net.ipv6.icmp.errors_extension_mask"}
INTERFACE_INFORMATION = 2
HEADERS = {V4: 28, socket.AF_INET6: 48}
# The padded original datagram: at least 128 bytes (RFC 4884, 3).
ORIGINAL = 128
# An MPLS label stack of one entry: label 16, bottom of stack, TTL 1 (RFC 4950).
MPLS = struct.pack("!HBB", 8, 1, 1) + bytes.fromhex("00010101")


def extension(*objects, version=2, sound=True):
    """The extension structure: header with checksum, then objects (RFC 4884, 7)."""
    structure = struct.pack("!BBH", version << 4, 0, 0) + b"".join(objects)
    number = checksum(structure) ^ (0 if sound else 0x5555)
    return structure[:2] + struct.pack("!H", number) + structure[4:]


@pytest.fixture
def receive(net, family):
    """receive(structure, length, asked): the error in a UDP socket's queue after a time exceeded with this extension
    structure, whose length field stands for `length` bytes (in 32-bit words, IPv6: 64-bit)."""
    client, server, router = net.nodes("client", "server", "router")

    def send(structure, length=ORIGINAL, asked=True):
        sock = client.socket(family, socket.SOCK_DGRAM)
        sock.bind((client.address(family), 0))
        errqueue.receive_errors(sock)
        if asked:
            errqueue.receive_extensions(sock)
        quoted = icmp.udp_quote(client.address(family), sock.getsockname()[1], server.address(family), 9)
        rest = (length // 4) << 16 if family == V4 else (length // 8) << 24
        icmp.send_error(router, client, *TIME_EXCEEDED[family], quoted.ljust(ORIGINAL, b"\0") + structure, rest)
        return errqueue.next_error(sock)

    return send


def test_rfc4884_len_is_the_offset_of_the_extension_structure(family, receive):
    """ee_rfc4884.len counts the original datagram's bytes after its headers; the whole structure follows."""
    structure = extension(MPLS)
    error = receive(structure)

    assert (error.extensions, error.valid) == (ORIGINAL - HEADERS[family], True)
    assert error.payload[error.extensions:] == structure


def test_extension_with_two_objects_is_valid(family, receive):
    """The lengths of all objects add up."""
    error = receive(extension(MPLS, MPLS))

    assert (error.extensions, error.valid) == (ORIGINAL - HEADERS[family], True)


@pytest.mark.parametrize("structure", [
    extension(MPLS, sound=False), extension(MPLS[:2] + b"\0\0"),
    extension(struct.pack("!HBB", 12, 1, 1) + MPLS[4:]),
], ids=("checksum", "empty-object", "object-too-long"))
def test_broken_extension_is_flagged_invalid(family, receive, structure):
    """SO_EE_RFC4884_FLAG_INVALID: the offset is right, the content is not (ip_icmp_error_rfc4884_validate())."""
    error = receive(structure)

    assert (error.extensions, error.valid) == (ORIGINAL - HEADERS[family], False)


def test_extension_of_another_version_is_not_validated(family, receive):
    """The kernel validates version 2 only."""
    error = receive(extension(MPLS, version=1, sound=False))

    assert (error.extensions, error.valid) == (ORIGINAL - HEADERS[family], True)


def test_length_field_0_means_no_extensions(receive):
    """Routers older than RFC 4884 leave the field 0: the rest belongs to the datagram."""
    error = receive(extension(MPLS), length=0)

    assert (error.extensions, error.valid) == (0, True)


@pytest.mark.parametrize("length", [64, 1016], ids=("below-128", "beyond-the-message"))
def test_out_of_range_length_field_is_ignored(receive, length):
    """Below 128 bytes, or more than the message has: no extensions (ip_icmp_error_rfc4884())."""
    error = receive(extension(MPLS), length=length)

    assert error.extensions == 0


def test_rfc4884_len_is_0_without_ip_recverr_rfc4884(family, receive):
    """The error is queued with type and code as usual."""
    error = receive(extension(MPLS), asked=False)

    assert (error.extensions, error.valid) == (0, True)
    assert (error.kind, error.code) == TIME_EXCEEDED[family]


@pytest.mark.parametrize("mask", [0, 1])
def test_errors_extension_mask_adds_the_incoming_interface(net, family, mask):
    """icmp_errors_extension_mask=1 (ip-sysctl.rst): an object of class 2 with index and name of the incoming interface
    (RFC 5837, 4); with 0 no extensions."""
    client, server, router = net.nodes("client", "server", "router")
    try:
        router.pin({EXTENSION_MASK[family]: mask})
    except FileNotFoundError as error:
        raise MissingFeature(f"the kernel has no {EXTENSION_MASK[family]}") from error
    sock = client.socket(family, socket.SOCK_DGRAM)
    errqueue.receive_errors(sock)
    errqueue.receive_extensions(sock)
    set_ttl(sock, 1)
    sock.sendto(bytes(200), (server.address(family), 9))
    error = errqueue.next_error(sock)

    assert (error.valid, error.extensions > 0) == (True, mask == 1)
    if mask:
        information = error.payload[error.extensions + 4:]
        _length, number, _flags, index = struct.unpack_from("!HBBI", information)
        assert (number, index) == (INTERFACE_INFORMATION, router.interfaces["client"].index)
        assert b"to-client" in information
