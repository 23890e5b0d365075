"""A topology is frozen data in roles; build() creates it for a `with` block."""

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache

from netns.hosts.host import Host, Interface
from netns.hosts.pinned import pin_interfaces, pin_namespace
from netns.netlink import rtnl
from netns.observe import procnet
from netns.observe.capture import PacketRing
from netns.wait import eventually

_FORWARDING = {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1}
_LINK_LOCAL = b"fe80"
_FIRST_INDEX = 11
# RFC 7042 reserves 00-00-5E-00-53-00 to -FF for documentation.
_DOCUMENTATION_MAC = "00:00:5e:00:53:{:02x}"


@dataclass(frozen=True)
class Link:
    """An Ethernet cable (a veth pair) between two roles; `mtu` in bytes.

    In each prefix the first role gets the first address, the second role the second.
    """

    left: str
    right: str
    ipv4: str
    ipv6: str
    mtu: int = 1500

    @cache
    def address(self, role: str, family: socket.AddressFamily) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
        """The role's address on this link, with the prefix length."""
        prefix = ipaddress.ip_network(self.ipv4 if family == socket.AF_INET else self.ipv6)
        return ipaddress.ip_interface(f"{prefix[1 + (self.left, self.right).index(role)]}/{prefix.prefixlen}")


@dataclass(frozen=True)
class Route:
    """`role` reaches `to` through `via`, the other end of one of its links, or through several of them (multipath).

    `to` is a prefix, or "default" for all of IPv4 and IPv6. `mtu` is the route's MTU in bytes, 0 for none.
    """

    role: str
    via: str | tuple[str, ...]
    to: str = "default"
    mtu: int = 0

    @property
    def ways(self) -> tuple[str, ...]:
        return (self.via,) if isinstance(self.via, str) else self.via

    @cache
    def prefixes(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        names = ("0.0.0.0/0", "::/0") if self.to == "default" else (self.to,)
        return tuple(ipaddress.ip_network(name) for name in names)


@dataclass(frozen=True)
class Topology:
    """Hosts by role, the links and routes between them, and the roles that forward packets.

    Each role at an end of a link is a host.
    """

    links: tuple[Link, ...]
    routes: tuple[Route, ...] = ()
    routers: tuple[str, ...] = ()

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(role for link in self.links for role in (link.left, link.right)))

    def __str__(self) -> str:
        """The topology as text: one line per link, route and router."""
        links = [f"{interface_name(link, link.left)} ----[ mtu {link.mtu} ]---- {interface_name(link, link.right)}" for link in self.links]
        routes = [
            f"{route.role}: {route.to} via {' or '.join(route.ways)}" + (f" mtu {route.mtu}" if route.mtu else "")
            for route in self.routes
        ]
        return "\n".join((*links, *routes, *(f"{role} forwards" for role in self.routers)))


def interface_name(link: Link, role: str) -> str:
    return f"{role} ({link.address(role, socket.AF_INET)}, {link.address(role, socket.AF_INET6)})"


class Network:
    """A topology that was built. `network["client"]` is one host, `network.nodes("client", "server")` several."""

    def __init__(self, topology: Topology, hosts: dict[str, Host]) -> None:
        self.topology = topology
        self.hosts = hosts

    def __getitem__(self, role: str) -> Host:
        return self.hosts[role]

    def nodes(self, *roles: str) -> tuple[Host, ...]:
        """The hosts with these roles. Raises KeyError for a role that the topology does not have."""
        return tuple(self.hosts[role] for role in roles)

    def names(self) -> dict[str, str]:
        """Address -> role, for displaying packets."""
        return {
            str(address.ip): host.role
            for host in self.hosts.values() for interface in host.interfaces.values()
            for address in interface.addresses.values()
        }


@contextmanager
def build(topology: Topology, capture: bool = False, ring: int = PacketRing.SIZE) -> Iterator[Network]:
    """Create the hosts and links; every interface passes packets and every address is usable. All are removed after the block.

    With `capture` each host records its packets from before its first link exists, `ring` of them between two drains. Raises
    OSError if the kernel refuses a step, ExpectationFailed if a host is not ready within 10 s.
    """
    with ExitStack() as stack:
        hosts = {role: stack.enter_context(Host(role)) for role in topology.roles}
        for host in hosts.values():
            pin_namespace(host)
            if host.role in topology.routers:
                host.pin(_FORWARDING)
            if capture:
                stack.enter_context(host.recording(ring))
        for number, link in enumerate(topology.links):
            plug(link, number, hosts[link.left], hosts[link.right])
        for host in hosts.values():
            pin_interfaces(host)
            rtnl.request(host.namespace, _configuration(topology, host.role))
        for host in hosts.values():
            what = f"links of {host.role} up, with its addresses"
            eventually(what, lambda: _ready(topology, host), True, within=10, every=0.001)
        yield Network(topology, hosts)


def _ready(topology: Topology, host: Host) -> bool:
    """Whether its interfaces have noticed their carriers and its addresses are usable.

    The end of a link that comes up first drops packets until linkwatch_do_dev() activates its queue, which also adds its
    link-local address. An address has its local route some time after it was added: see procnet.local_routes().
    """
    with host.entered():
        local = procnet.local_routes()
    own = _own(topology, host.role)
    return own.issubset(local) and {device for address, device in local if address.startswith(_LINK_LOCAL)}.issuperset(
        device for _address, device in own)


@cache
def _own(topology: Topology, role: str) -> frozenset[tuple[bytes, bytes]]:
    """The role's IPv6 addresses with their devices, as in ipv6_route."""
    return frozenset((interface.addresses[socket.AF_INET6].packed.hex().encode(), interface.name.encode())
                     for interface in _interfaces(topology, role).values())


@cache
def _configuration(topology: Topology, role: str) -> tuple[rtnl.Message, ...]:
    """The messages that set up the role's links, addresses and routes; encoded once, since a suite builds the same few topologies often."""
    messages = [rtnl.loopback_up()]
    for interface in _interfaces(topology, role).values():
        messages.append(rtnl.link_state(interface.index, up=True))
        messages += [rtnl.address(interface.index, address) for address in interface.addresses.values()]
    for route in topology.routes:
        if route.role == role:
            messages += [rtnl.route(prefix, *_ways(topology, route, prefix.version), mtu=route.mtu) for prefix in route.prefixes()]
    return tuple(messages)


def _ways(topology: Topology, route: Route, version: int) -> Iterator[tuple[str, int]]:
    """Gateway and interface index of each next hop."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    for via in route.ways:
        yield _interfaces(topology, via)[route.role].address(family), _interfaces(topology, route.role)[via].index


@cache
def _interfaces(topology: Topology, role: str) -> dict[str, Interface]:
    """The role's interfaces, by the role at the other end."""
    found = {}
    for number, link in enumerate(topology.links):
        left, right = _ends(link, number)
        if role == link.left:
            found[link.right] = left
        elif role == link.right:
            found[link.left] = right
    return found


@cache
def _ends(link: Link, number: int) -> tuple[Interface, Interface]:
    """The left and right ends of link `number` of the topology."""
    return tuple(
        Interface(
            name=f"to-{other}",
            # Interface indexes are unique in a topology, so that a trace identifies each interface.
            index=_FIRST_INDEX + 2 * number + side,
            mac=_DOCUMENTATION_MAC.format(2 * number + side + 1),
            addresses={family: link.address(role, family) for family in (socket.AF_INET, socket.AF_INET6)},
        )
        for side, (role, other) in enumerate(((link.left, link.right), (link.right, link.left)))
    )


def plug(link: Link, number: int, left: Host, right: Host) -> None:
    near, far = _ends(link, number)
    rtnl.request(left.namespace, [rtnl.veth(near, far, link.mtu, right.namespace.descriptor)])
    left.interfaces[right.role] = near
    right.interfaces[left.role] = far
