"""A topology is frozen data in roles; build() makes it real for the time of a `with` block."""

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache

from . import rtnl
from .host import Host, Interface
from .wait import eventually

# IPv6 without waiting and without random traffic: no duplicate address detection, no router solicitation.
# Written before the interfaces exist, because an interface takes over the defaults of the moment it appears.
_QUIET_IPV6 = {
    "net.ipv6.conf.all.accept_dad": 0,
    "net.ipv6.conf.default.accept_dad": 0,
    "net.ipv6.conf.default.addr_gen_mode": 0,
    "net.ipv6.conf.default.accept_ra": 0,
    "net.ipv6.conf.default.router_solicitations": 0,
}
_FORWARDING = {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1}
# One line for each route: where to, prefix length, six more words, flags, device; numbers are hexadecimal, of fixed width.
_IPV6_ROUTE = "/proc/thread-self/net/ipv6_route"
_TO, _FLAGS, _DEVICE = slice(0, 32), slice(132, 140), slice(141, None)
_RTF_LOCAL = 0x80000000
_LINK_LOCAL = "fe80"
_FIRST_INDEX = 11
# RFC 7042 keeps 00-00-5E-00-53-00 to -FF for documentation.
_DOCUMENTATION_MAC = "00:00:5e:00:53:{:02x}"


@dataclass(frozen=True)
class Link:
    """An Ethernet cable (a veth pair) between two roles; `mtu` in bytes.

    Of each prefix the first role gets the first address, the second role the second.
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
    """`role` reaches `to` through `via`, which is at the other end of one of its links.

    `to` is a prefix, or "default": all of IPv4 and of IPv6. `mtu` is the route's own, in bytes, 0 for none.
    """

    role: str
    via: str
    to: str = "default"
    mtu: int = 0

    @cache
    def prefixes(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        names = ("0.0.0.0/0", "::/0") if self.to == "default" else (self.to,)
        return tuple(ipaddress.ip_network(name) for name in names)


@dataclass(frozen=True)
class Topology:
    """Hosts by role, the links and routes between them, and the roles that forward packets.

    A host is there because a link ends at it.
    """

    links: tuple[Link, ...]
    routes: tuple[Route, ...] = ()
    routers: tuple[str, ...] = ()

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(role for link in self.links for role in (link.left, link.right)))

    def __str__(self) -> str:
        """The topology as a drawing, one line per link, then one per route."""
        links = [f"{_end(link, link.left)} ----[ mtu {link.mtu} ]---- {_end(link, link.right)}" for link in self.links]
        routes = [
            f"{route.role}: {route.to} via {route.via}" + (f" mtu {route.mtu}" if route.mtu else "")
            for route in self.routes
        ]
        return "\n".join((*links, *routes, *(f"{role} forwards" for role in self.routers)))


def _end(link: Link, role: str) -> str:
    return f"{role} ({link.address(role, socket.AF_INET)}, {link.address(role, socket.AF_INET6)})"


class Network:
    """A topology that exists. `network["client"]` is one host, `network.nodes("client", "server")` several."""

    def __init__(self, topology: Topology, hosts: dict[str, Host]) -> None:
        self.topology = topology
        self.hosts = hosts

    def __getitem__(self, role: str) -> Host:
        return self.hosts[role]

    def nodes(self, *roles: str) -> tuple[Host, ...]:
        """The hosts in these roles. Raises KeyError for a role that the topology does not have."""
        return tuple(self.hosts[role] for role in roles)

    def names(self) -> dict[str, str]:
        """Address -> role, for texts about packets."""
        return {
            str(address.ip): host.role
            for host in self.hosts.values() for interface in host.interfaces.values()
            for address in interface.addresses.values()
        }


@contextmanager
def build(topology: Topology, capture: bool = False) -> Iterator[Network]:
    """Make the hosts and links, every interface passing packets and every address usable; take it all down at the end.

    With `capture` each host records its packets, from before its first link on. Raises OSError where the kernel
    refuses a step.
    """
    with ExitStack() as stack:
        hosts = {role: stack.enter_context(Host(role)) for role in topology.roles}
        for host in hosts.values():
            host.pin(_QUIET_IPV6)
            if host.role in topology.routers:
                host.pin(_FORWARDING)
            if capture:
                stack.enter_context(host.recording())
        for number, link in enumerate(topology.links):
            _plug(link, number, hosts[link.left], hosts[link.right])
        for host in hosts.values():
            rtnl.request(host.namespace, [rtnl.loopback_up(), *_configuration(host), *_routes(topology, hosts, host)])
        for host in hosts.values():
            eventually(lambda: _ready(host), True, within=10, every=0.001)
        yield Network(topology, hosts)


def _ready(host: Host) -> bool:
    """Whether its interfaces have taken note of their carriers, and its addresses are in use.

    The end of a link that was up before the other one drops what is sent until linkwatch_do_dev() activates its queue, which
    brings its link-local address as well. An address has its local route, and answers neighbours, when addrconf_dad_work()
    has run, which an address without duplicate address detection needs too.
    """
    with host.entered(), open(_IPV6_ROUTE) as file:
        own = {(line[_DEVICE].strip(), line[_TO]) for line in file if int(line[_FLAGS], 16) & _RTF_LOCAL}
    with_link_local = {name for name, address in own if address.startswith(_LINK_LOCAL)}
    return all(
        interface.name in with_link_local and (interface.name, interface.addresses[socket.AF_INET6].packed.hex()) in own
        for interface in host.interfaces.values()
    )


def _configuration(host: Host) -> Iterator[object]:
    for interface in host.interfaces.values():
        yield rtnl.link_state(interface.index, up=True)
        for address in interface.addresses.values():
            yield rtnl.address(interface.index, address)


def _routes(topology: Topology, hosts: dict[str, Host], host: Host) -> Iterator[object]:
    for route in topology.routes:
        if route.role == host.role:
            for prefix in route.prefixes():
                family = socket.AF_INET if prefix.version == 4 else socket.AF_INET6
                gateway = hosts[route.via].address(family, peer=host.role)
                yield rtnl.route(prefix, gateway, host.interfaces[route.via].index, route.mtu)


def _plug(link: Link, number: int, left: Host, right: Host) -> None:
    near, far = (
        Interface(
            name=f"to-{other.role}",
            # No two interfaces of a topology share an index, so that a trace names each of them without doubt.
            index=_FIRST_INDEX + 2 * number + side,
            mac=_DOCUMENTATION_MAC.format(2 * number + side + 1),
            addresses={family: link.address(host.role, family) for family in (socket.AF_INET, socket.AF_INET6)},
        )
        for side, (host, other) in enumerate(((left, right), (right, left)))
    )
    rtnl.request(left.namespace, [rtnl.veth(near, far, link.mtu, right.namespace.descriptor)])
    left.interfaces[right.role] = near
    right.interfaces[left.role] = far
