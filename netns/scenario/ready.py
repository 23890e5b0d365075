"""Networks in which scenarios happen. Those that a saved machine has built in advance cost a scenario nothing."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache

from netns.hosts.host import Host
from netns.hosts.pinned import pin_interfaces, pin_namespace
from netns.hosts.topology import Link, Network, Route, Topology, build
from netns.netlink import rtnl

_NETWORKS = (("192.0.2.0/24", "2001:db8:1::/64"), ("198.51.100.0/24", "2001:db8:2::/64"))
_MTU = 1500
_ALONE = "client"
_RING = 512                                 # packets
_PINNED = {"net.ipv4.ping_group_range": "0 2147483647"}     # ping sockets for everyone: icmp(7)


class ReadyNetworks:
    """Networks that are built in advance. Each is used once: it is left as it is, without sockets, since to remove it takes longer than
    most scenarios."""

    def __init__(self) -> None:
        self._networks: dict[int, list[Network]] = {}
        self._held: dict[Network, ExitStack] = {}
        self._used: list[Network] = []

    def build(self, numbers: Mapping[int, int]) -> None:
        """So many networks of each number of hosts."""
        for hosts, number in numbers.items():
            self._networks[hosts] = [self._made(hosts) for _ in range(number)]

    def _made(self, hosts: int) -> Network:
        stack = ExitStack()
        network = stack.enter_context(built({"hosts": hosts}))
        self._held[network] = stack
        return network

    def remove_used(self) -> None:
        """Remove those that scenarios have had."""
        for network in self._used:
            self._held.pop(network).close()
        self._used.clear()

    def turn(self, seed: int) -> None:
        """Begin with other networks: what a namespace has chosen at random varies with the seed."""
        for networks in filter(None, self._networks.values()):
            networks[:] = networks[seed % len(networks):] + networks[:seed % len(networks)]

    @contextmanager
    def taken(self, scenario: dict) -> Iterator[Network]:
        """A network for this scenario of explore.language: the next one that fits, built now if there is none."""
        if not self._networks.get(scenario["hosts"]):
            with built(scenario) as network:
                yield network
            return
        network = self._networks[scenario["hosts"]].pop()
        self._used.append(network)
        for link, mtu in zip(network.topology.links, scenario.get("mtus", ())):
            for near, far in ((link.left, link.right), (link.right, link.left)):
                rtnl.request(network[near].namespace, [rtnl.link_mtu(network[near].interfaces[far].index, mtu)])
        try:
            yield network
        finally:
            for host in network.hosts.values():
                host.abort_sockets()


@contextmanager
def built(scenario: dict) -> Iterator[Network]:
    """A new network for it, which is removed after the block; each host records its packets."""
    hosts = scenario["hosts"]
    if hosts == 1:
        with _alone() as network:
            yield network
        return
    with build(_topology(hosts, tuple(scenario.get("mtus", ()))), capture=True, ring=_RING) as network:
        for host in network.hosts.values():
            host.pin(_PINNED)
        yield network


@contextmanager
def _alone() -> Iterator[Network]:
    with Host(_ALONE) as host, host.recording(_RING):
        pin_namespace(host)
        pin_interfaces(host)
        host.pin(_PINNED)
        rtnl.request(host.namespace, [rtnl.loopback_up()])
        yield Network(Topology(()), {_ALONE: host})


@cache
def _topology(hosts: int, mtus: tuple[int, ...]) -> Topology:
    """Two hosts on a link, or with a router between them; `mtus` in bytes, of the links from the client on."""
    roles = ("client", "server") if hosts == 2 else ("client", "router", "server")
    links = tuple(Link(near, far, *networks, mtu=mtu) for near, far, networks, mtu in
                  zip(roles, roles[1:], _NETWORKS, mtus or (_MTU, _MTU)))
    return Topology(links) if hosts == 2 else Topology(links, (Route("client", "router"), Route("server", "router")), ("router",))
