"""Devices and VRFs: which sockets share a port, which packets reach them, and which addresses they can have."""

import socket
import struct

import pytest

from fixtures.binding import V6, Ask, bound, made
from fixtures.icmp_errors import PORT_UNREACHABLE
from fixtures.icmp_sockets import ELSEWHERE, REMOTE
from fixtures.table import Measured, Must, Table
from netns import Link, Topology
from netns.attempt import errno_of, so_error
from netns.hosts.pinned import NO_ICMP_LIMITS
from netns.packets import errqueue, icmp

# The server's interface to the other host belongs to vrf-red.
pytestmark = pytest.mark.topology(Topology(links=(
    Link("client", "server", ipv4="192.0.2.0/24", ipv6="2001:db8:1::/64"),
    Link("other", "server", ipv4="198.51.100.0/24", ipv6="2001:db8:2::/64"),
)))

PORT = 4000
VRF = "vrf-red"
DEVICES = ("no device", "to-client", "to-other", VRF)
SOURCE = "Documentation/networking/vrf.rst, Applications; socket(7) SO_BINDTODEVICE"
ACCEPT = {"l3mdev_accept 0": 0, "l3mdev_accept 1": 1}
SENDERS = {"to-client": "client", "to-other": "other"}


BOTH = Must("bound", "vrf.rst: processes may bind to the same port if they bind to an l3mdev")


def conflict(accept, first, second):
    """What the second bind() gives. In one VRF a packet can be for both if one of them has no device, or both have the same."""
    pair = {first, second}
    if first == second or pair == {"no device", "to-client"}:
        return "EADDRINUSE"
    if pair == {"no device", VRF}:
        return Measured("vrf.rst says that VRF-aware applications may lead to problems") if accept else BOTH
    if "to-client" in pair:
        return "bound"
    return Measured("vrf.rst does not speak of sockets of an enslaved interface beside others")


SHARING = Table("binding.device", "first socket", "second socket", SOURCE, {
    f"{protocol}, {first}": {f"{accept}, {second}": conflict(ACCEPT[accept], first, second) for accept in ACCEPT for second in DEVICES}
    for protocol in ("TCP", "UDP") for first in DEVICES})


def reached(protocol, accept, device, arrives):
    """Whether a packet that arrives there reaches a socket of this device, and what the sender sees otherwise."""
    takes = {"no device": ("to-client", "to-other") if accept else ("to-client",), "to-client": ("to-client",)}.get(device, ("to-other",))
    return "delivered" if arrives in takes else "nothing" if protocol == "raw" else "ECONNREFUSED"


REACH = Table("binding.vrf", "socket", "interface by which the packet arrives", SOURCE, {
    f"{protocol}, {device}": {f"{accept}, {arrives}": reached(protocol, ACCEPT[accept], device, arrives)
                              for accept in ACCEPT for arrives in SENDERS} for protocol in ("TCP", "UDP", "raw") for device in DEVICES})

TOLD = Table("binding.vrf_errors", "socket", "interface by which an ICMP error arrives", SOURCE, {
    f"{protocol}, {device}": {
        f"{accept}, {arrives}": "told" if reached(protocol, ACCEPT[accept], device, arrives) == "delivered" else "nothing"
        for accept in ACCEPT for arrives in SENDERS} for protocol in ("UDP", "raw") for device in DEVICES})

# Of the addresses of the default VRF and of vrf-red.
ADDRESSES = {"of to-client": "default", "of to-other": VRF, "any": "", "of another host": "none"}
LOCAL = Table("binding.vrf_address", "address", "socket", f"{SOURCE}; ip(7): EADDRNOTAVAIL where the address is not local", {
    address: {f"{protocol}, {device}": "bound" if owner in ("", VRF if device in ("to-other", VRF) else "default") else "EADDRNOTAVAIL"
              for protocol in ("TCP", "UDP", "raw", "ping") for device in DEVICES} for address, owner in ADDRESSES.items()})


@pytest.fixture
def server(net, family):
    """With vrf-red. An interface loses its IPv6 address when it becomes part of one."""
    host = net["server"]
    host.pin(NO_ICMP_LIMITS)
    host.run(["ip", "-batch", "-"], stdin=f"""
        link add {VRF} type vrf table 10
        link set {VRF} up
        link set to-other master {VRF}
        address replace {host.address(V6, "other")}/64 dev to-other nodad
    """)
    host.await_address(host.address(V6, "other"))
    return host


def socket_on(server, protocol, family, device):
    found = made(server, protocol, Ask("::" if family == V6 else "0.0.0.0"))
    if device != "no device":
        found.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    return found


def pin_accept(server, accept):
    server.pin({f"net.ipv4.{protocol}_l3mdev_accept": ACCEPT[accept] for protocol in ("tcp", "udp", "raw")})


@pytest.mark.table(SHARING)
@pytest.mark.parametrize("row", SHARING.rows)
def test_sockets_of_different_devices_and_vrfs_share_a_port(server, family, row, table):
    """Where no packet can be for both."""
    protocol, first = row.split(", ")
    for column in table:
        accept, second = column.split(", ")
        pin_accept(server, accept)
        with socket_on(server, protocol, family, first) as one, socket_on(server, protocol, family, second) as other:
            one.bind(("", PORT))
            table.saw(bound(other, "", PORT) or "bound")


@pytest.mark.table(REACH)
@pytest.mark.parametrize("row", REACH.rows)
def test_socket_receives_what_arrives_in_its_vrf(net, server, family, row, table):
    """A socket without a device is of the default VRF, unless l3mdev_accept lets it work across all."""
    protocol, device = row.split(", ")
    for column in table:
        accept, arrives = column.split(", ")
        pin_accept(server, accept)
        with socket_on(server, protocol, family, device) as receiver, net[SENDERS[arrives]].socket(
                family, receiver.type, receiver.proto if protocol == "raw" else 0) as sender:
            if protocol != "raw":
                receiver.bind(("", PORT))
            table.saw(reach(net, server, family, protocol, arrives, receiver, sender))


def reach(net, server, family, protocol, arrives, receiver, sender):
    """Send to the server's address on this interface, and a datagram to a fence there afterwards."""
    receiver.settimeout(5)
    sender.settimeout(5)
    target = server.address(family, SENDERS[arrives]), 0 if protocol == "raw" else PORT
    if protocol == "TCP":
        receiver.listen()
        error = errno_of(sender.connect, target)
        if not error:
            receiver.accept()[0].close()
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        return error or "delivered"
    sender.connect(target)
    sender.send(b"x")
    with socket_on(server, "UDP", family, arrives) as fence, net[SENDERS[arrives]].socket(family, socket.SOCK_DGRAM) as last:
        fence.bind(("", PORT + 1))
        fence.settimeout(10)
        last.sendto(b"fence", (target[0], PORT + 1))
        fence.recv(100)
    receiver.setblocking(False)
    found = errno_of(receiver.recv, 100)
    if isinstance(found, bytes):
        return "delivered" if found.endswith(b"x") else f"delivered {found!r}"
    return "nothing" if protocol == "raw" else errno_of(sender.recv, 100)


@pytest.mark.table(TOLD)
@pytest.mark.parametrize("row", TOLD.rows)
def test_socket_is_told_of_errors_that_arrive_in_its_vrf(net, server, family, row, table):
    """As of packets: the quoted one is from the server's address on the interface and from the socket's port."""
    protocol, device = row.split(", ")
    for column in table:
        accept, arrives = column.split(", ")
        pin_accept(server, accept)
        peer = net[SENDERS[arrives]]
        with socket_on(server, protocol, family, device) as sock:
            errqueue.receive_errors(sock, True)
            sock.bind(("", 0 if protocol == "raw" else PORT))
            quoted = icmp.udp_quote(server.address(family, peer.role), PORT, ELSEWHERE[family], REMOTE,
                                    sock.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL))
            icmp.Sender(peer, server, family).send(*PORT_UNREACHABLE[family], quoted)
            table.saw("told" if (so_error(sock), bool(errqueue.pending(sock))) == ("ECONNREFUSED", True) else "nothing")


@pytest.mark.table(LOCAL)
@pytest.mark.parametrize("row", LOCAL.rows)
def test_socket_can_be_bound_to_the_addresses_of_its_vrf(net, server, family, row, table):
    """And to no others: each VRF has its own table of local addresses."""
    server.pin({"net.ipv4.ping_group_range": "0 0"})
    addresses = {"of to-client": server.address(family, "client"), "of to-other": server.address(family, "other"),
                 "any": "::" if family == V6 else "0.0.0.0", "of another host": net["client"].address(family)}
    for column in table:
        protocol, device = column.split(", ")
        with socket_on(server, protocol, family, device) as sock:
            table.saw(bound(sock, addresses[row], 0) or "bound")
