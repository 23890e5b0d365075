"""Steps about what stands between hosts: tunnels, IPsec, address translation. Each is of one kind, and the same at both ends."""

import socket

from netns.hosts import tunnel
from netns.hosts.topology import Network
from netns.netlink import xfrm

# The addresses within tunnels, of the first role of the two and of the second.
INNER = {socket.AF_INET: ("10.99.0.1", "10.99.0.2"), socket.AF_INET6: ("2001:db8:99::1", "2001:db8:99::2")}
_VXLAN_PORT, _SPI = 4789, 0x1000
# ip-link(8)'s words for each kind, by the family within.
_KINDS = {
    "ipip": {socket.AF_INET: ("ipip",), socket.AF_INET6: ("ip6tnl", "mode", "ip6ip6")},
    "sit": {socket.AF_INET: ("sit", "mode", "ipip"), socket.AF_INET6: ("sit",)},
    "gre": {socket.AF_INET: ("gre",), socket.AF_INET6: ("ip6gre",)},
    "vxlan": {family: ("vxlan", "id", "42", "dstport", str(_VXLAN_PORT)) for family in INNER},
}
_NAT = {
    "masquerade": ("postrouting priority 100", "masquerade"),
    "redirect": ("prerouting priority -100", "tcp dport 81 redirect to :80"),
    "dnat": ("prerouting priority -100", "tcp dport 81 dnat to {server}:80"),
    "track": ("forward priority 0", "ct state invalid counter drop"),
}


class Equipment:
    """Part of netns.scenario.steps.Stage, which has the hosts."""

    network: Network
    family: socket.AddressFamily
    tunnels: int                            # how many there are
    far_ends: dict[str, str]                # the address at the other end of a role's last tunnel
    tracked: bool                           # whether conntrack is in use

    def do_tunnel(self, host: str, peer: str, kind: str) -> str:
        """A tunnel between neighbours; the addresses within are INNER. Around them is the same family, but for sit: IPv4."""
        near, far = sorted((self.network[host], self.network[peer]), key=lambda each: list(self.network.hosts).index(each.role))
        name, options = _KINDS[kind][self.family][0], _KINDS[kind][self.family][1:]
        outside = socket.AF_INET if name == "sit" else self.family
        length = 30 if self.family == socket.AF_INET else 64
        self.tunnels += 1
        first, second = INNER[self.family]
        for one, other, address, beyond in ((near, far, first, second), (far, near, second, first)):
            self.far_ends[one.role] = beyond
            ends = ("local", one.address(outside, other.role), "remote", other.address(outside, one.role))
            tunnel.add(one, f"tunnel{self.tunnels}", name, *options, *ends, address=f"{address}/{length}")
        return "done"

    def do_ipsec(self, host: str, peer: str, mode: str, part: str) -> str:
        """ESP between neighbours, for what they send each other: policies, states (SAs), or both."""
        ends = self.network[host], self.network[peer]
        for number, (one, other) in enumerate((ends, ends[::-1])):
            source, destination = one.address(self.family, other.role), other.address(self.family, one.role)
            sa = xfrm.SA(source, destination, _SPI + number, mode=mode)
            for at, direction in ((one, "out"), (other, "in")):
                policy = xfrm.Policy(xfrm.Selector(source, destination), xfrm.Template(source, destination, mode=mode), direction)
                xfrm.add(at, *([sa] if part != "policies" else []), *([policy] if part != "states" else []))
        return "done"

    def do_nat(self, host: str, kind: str) -> str:
        """Translate addresses at the host: of what leaves it, or of what comes to port 81. `track` drops what conntrack finds invalid."""
        self.tracked = True
        family = "ip" if self.family == socket.AF_INET else "ip6"
        hook, action = _NAT[kind]
        form = "filter" if kind == "track" else "nat"
        self.network[host].nft(f"add table {family} nat\n"
                               f"add chain {family} nat {kind}s {{ type {form} hook {hook}; }}\n"
                               f"add rule {family} nat {kind}s {action.format(server=self._server())}")
        return "done"

    def _server(self) -> str:
        server = list(self.network.hosts.values())[-1]
        address = server.address(self.family) if server.interfaces else "127.0.0.1" if self.family == socket.AF_INET else "::1"
        return f"[{address}]" if self.family == socket.AF_INET6 else address
