"""Which addresses bind() accepts: every kind of address x each kind of socket, plain, by IP_FREEBIND, by sysctl and on a device."""

import socket

import pytest

from fixtures.binding import IP_FREEBIND, IPV6_FREEBIND, V6, Ask, made
from fixtures.table import Measured, Must, OneOf, Table
from netns import Link, Topology
from netns.attempt import errno_of

pytestmark = pytest.mark.topology(Topology(links=(
    Link("client", "server", ipv4="192.0.2.0/24", ipv6="2001:db8:1::/64"),
    Link("client", "other", ipv4="198.51.100.0/24", ipv6="2001:db8:2::/64"),
)))

SOURCE = "ip(7): EADDRNOTAVAIL where the address is not local; IP_FREEBIND and ip_nonlocal_bind allow one that is not"
PROTOCOLS = ("TCP", "UDP", "raw", "ping")
# On a device by SO_BINDTODEVICE.
WAYS = ("plain", "IP_FREEBIND", "ip_nonlocal_bind", "on to-server", "on to-other")
NONLOCAL_ALLOWED = ("IP_FREEBIND", "ip_nonlocal_bind")
LINK_LOCAL = "fe80::200:5eff:fe00:5301"    # that of to-server: topology.py gives the MAC address
# By kind; a link-local address with its device after %.
ADDRESSES = {
    "any": ("0.0.0.0", "::", "::ffff:0.0.0.0"),
    "local": ("192.0.2.1", "198.51.100.1", "127.0.0.1", "127.200.0.1", "2001:db8:1::1", "2001:db8:2::1", "::ffff:192.0.2.1",
              "::ffff:127.0.0.1"),
    "loopback": ("::1",),
    "not local": ("192.0.2.2", "192.0.2.77", "203.0.113.9", "0.0.0.1", "240.0.0.1", "2001:db8:1::2", "2001:db8:1::77", "2001:db8:ff::9",
                  "::2", "::ffff:203.0.113.9", "::192.0.2.1"),
    "broadcast": ("192.0.2.255", "127.255.255.255", "255.255.255.255"),
    "host part of zeros": ("192.0.2.0",),
    "multicast": ("224.0.0.1", "239.1.2.3", "ff0e::1234", "ff05::2", "::ffff:239.1.2.3"),
    "link-local multicast": ("ff02::1", "ff02::1%to-server", "ff02::1%to-other"),
    "link-local": (f"{LINK_LOCAL}", f"{LINK_LOCAL}%to-server", f"{LINK_LOCAL}%to-other"),
    "link-local, no such device": (f"{LINK_LOCAL}%999",),
    "IPv4-mapped, V6ONLY": ("V6ONLY ::ffff:0.0.0.0", "V6ONLY ::ffff:192.0.2.1", "V6ONLY ::ffff:203.0.113.9"),
}
KINDS = {address: kind for kind, addresses in ADDRESSES.items() for address in addresses}
UNICAST_ONLY = "ip(7): connection-oriented sockets use only unicast addresses; it does not say which call refuses others"


def expected(kind, address, protocol, way):
    device = way.rpartition("on ")[2] if way.startswith("on ") else ""
    six = ":" in address
    if protocol in ("raw", "ping") and "::ffff:" in address:
        return Measured("of IPv4-mapped addresses RFC 3493, 3.7 speaks for TCP and UDP only")
    if kind in ("any", "local"):
        return "bound"
    if kind == "IPv4-mapped, V6ONLY":
        return Must("EINVAL", "RFC 3493, 5.3: such a socket is for IPv6 alone; bind(2): not a valid address for this socket")
    if kind == "not local":
        return "bound" if way in NONLOCAL_ALLOWED else "EADDRNOTAVAIL"
    if kind == "loopback":
        return Measured("no document says whether ::1 belongs to other devices") if device else "bound"
    if kind.endswith("multicast") and protocol == "TCP":
        return Must("EINVAL", "RFC 4291, 2.7: no source address; bind(2): not a valid address for this socket") \
            if six and kind == "multicast" and "ffff" not in address else Measured(UNICAST_ONLY)
    if kind == "host part of zeros":
        return OneOf(("bound", "EADDRNOTAVAIL"), "RFC 1122, 3.3.6: an obsolete broadcast address, which a host should accept")
    if protocol == "ping":
        return Measured("no document says which addresses ping sockets may have")
    if kind in ("broadcast", "multicast"):
        return Measured(UNICAST_ONLY) if protocol == "TCP" else Must("bound", "ip(7): datagrams to broadcast and multicast addresses")
    return scoped(kind, address, device)


def scoped(kind, address, device):
    """An address that needs a device: by sin6_scope_id or by SO_BINDTODEVICE."""
    if kind == "link-local, no such device":
        return Must("ENODEV", "ipv6(7): sin6_scope_id is not a valid interface index")
    scope = address.partition("%")[2]
    if not scope and not device:
        return OneOf(("ENODEV", "EINVAL"), "ipv6(7): 0 is not a valid interface index; RFC 4007, 11.2: the address is ambiguous")
    if scope and device and scope != device:
        return Measured("no document says which device counts")
    if kind == "link-local multicast":
        return Must("bound", "ipv6(7)")
    return "bound" if (scope or device) == "to-server" else Measured("no document says whether IP_FREEBIND extends to the device")


TABLE = Table("binding.address", "address", "socket", SOURCE, {
    address: {f"{protocol}, {way}": expected(kind, address, protocol, way) for protocol in PROTOCOLS for way in WAYS}
    for address, kind in KINDS.items()})


def outcome(client, text, protocol, way):
    """Bind a socket of its own to the address, and look whether it has it, and a port where it needs one."""
    address, _, scope = text.partition("%")
    index = int(scope) if scope.isdigit() else client.interfaces[scope.removeprefix("to-")].index if scope else 0
    ask = Ask(address)
    target = (ask.literal, 0, 0, index) if ask.family == V6 else (ask.literal, 0)
    with made(client, protocol, ask) as sock:
        if way == "IP_FREEBIND":
            sock.setsockopt(*((socket.IPPROTO_IPV6, IPV6_FREEBIND) if ask.family == V6 else (socket.IPPROTO_IP, IP_FREEBIND)), 1)
        elif way.startswith("on "):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, way.removeprefix("on ").encode())
        error = errno_of(sock.bind, target)
        if error:
            return error
        there, port = sock.getsockname()[:2]
    if there.partition("%")[0] != ask.literal:
        return f"bound to {there}"
    return "bound" if port or protocol == "raw" else "bound, without a port"


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_bind_accepts_the_addresses_that_its_socket_can_have(net, row, table):
    """Those of the host, the wildcards, and for datagrams broadcast and multicast; IP_FREEBIND and ip_nonlocal_bind add those of others."""
    client = net["client"]
    client.pin({"net.ipv4.ping_group_range": "0 0"})
    for column in table:
        protocol, way = column.split(", ")
        nonlocal_bind = int(way == "ip_nonlocal_bind")
        client.pin({"net.ipv4.ip_nonlocal_bind": nonlocal_bind, "net.ipv6.ip_nonlocal_bind": nonlocal_bind})
        table.saw(outcome(client, row, protocol, way))
