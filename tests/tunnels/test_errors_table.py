"""What the sender into a tunnel is told when the tunnel's own packet meets an ICMP error: each kind of tunnel with a TTL of its own and
with that of the packet inside x type and code. Source: RFC 2003, 4; RFC 2473, 8; ipip_err(), ip6_tnl_err()."""

import socket

import pytest

from fixtures.icmp_errors import CODES
from fixtures.table import Measured, Must, Table
from fixtures.topologies import LAN
from netns import eventually
from netns.attempt import errno_of, so_error
from netns.hosts import tunnel
from netns.hosts.pinned import NO_ICMP_LIMITS
from netns.packets import errqueue, icmp
from netns.traffic.closing import fence

pytestmark = pytest.mark.topology(LAN)

V4, V6 = socket.AF_INET, socket.AF_INET6
KINDS = {"ipip": V4, "gre": V4, "sit": V4, "ip6tnl": V6, "ip6gre": V6}
TTLS = {V4: {"its own TTL": ("ttl", "64"), "the inner packet's TTL": ("ttl", "inherit", "nopmtudisc")},
        V6: {"its own TTL": ("hoplimit", "64"), "the inner packet's TTL": ("hoplimit", "0")}}
PORT, MTU = 4000, 1400
# Of the packets inside, which are IPv6's in sit, ip6tnl and ip6gre.
ENDS = {V4: ("10.9.{}.1", "10.9.{}.2", 24), V6: ("fd00:9:{}::1", "fd00:9:{}::2", 64)}
TIME_EXCEEDED = {V4: (11, 0), V6: (3, 0)}
ROWS = {f"{kind}, {ttl}": (kind, ttl) for kind, outer in KINDS.items() for ttl in TTLS[outer]}


def expected(kind, ttl, message):
    if message == TIME_EXCEEDED[V4] and KINDS[kind] == V4 and ttl.startswith("the inner"):
        return Must("nothing", "ipip_err(): with the inner packet's TTL it is the inner sender's own doing, as traceroute's")
    return Measured("RFC 2003, 4 and RFC 2473, 8 let the tunnel's end choose what is reported, and when")


TABLE = Table("tunnels.errors", "tunnel, TTL of its packets", "type/code of the error", "RFC 2003, 4; RFC 2473, 8", {
    row: {f"{number}/{code}": expected(kind, ttl, (number, code)) for number, code in CODES[KINDS[kind]]}
    for row, (kind, ttl) in ROWS.items()})


class TunnelSender:
    """The client's tunnel to the server, and a sender into it."""

    def __init__(self, net, kind, ttl):
        self.client, self.server = net.nodes("client", "server")
        outer = KINDS[kind]
        self.inner = V6 if outer == V6 or kind == "sit" else V4
        self.outer = outer
        here, there = self.client.address(outer), self.server.address(outer)
        mode = ("mode", "any") if kind == "ip6tnl" else ()
        limit = ("encaplimit", "none") if outer == V6 else ()
        near, far, prefix = ENDS[self.inner]
        tunnel.add(self.client, "tun", kind, "local", here, "remote", there, *mode, *limit, *TTLS[outer][ttl],
                   address=f"{near.format(1)}/{prefix}")
        self.sock = self.client.socket(self.inner, socket.SOCK_DGRAM)
        self.sock.connect((far.format(1), PORT))
        errqueue.receive_errors(self.sock)      # without it a UDP socket ignores most of them: udp(7)

    def send(self):
        """A datagram into the tunnel: the packet around it, and the errno of the call."""
        with self.client.capture() as packets:
            result = errno_of(self.sock.send, b"x")
            fence(self.client, self.client, {V4: "127.0.0.1", V6: "::1"}[self.inner])
        around = [each for each in packets.sent() if each.interface == "to-server" and each.destination == self.server.address(self.outer)]
        return around, result if isinstance(result, str) else ""

    def told(self, kind, code, around):
        """What the next datagram is told after this error about the last one."""
        group = "Icmp" if self.outer == V4 else "Icmp6"
        before = self.client.counter(f"{group}.InMsgs")
        icmp.send_error(self.server, self.client, kind, code, icmp.quote(around), rest=MTU, counted=False)
        eventually(f"{group}.InMsgs of client", lambda: self.client.counter(f"{group}.InMsgs") > before, within=5)
        first = so_error(self.sock)
        _around, refused = self.send()
        later = refused or so_error(self.sock)
        while errqueue.pending(self.sock) is not None:
            pass                            # room for the next cells
        so_error(self.sock)
        return ", ".join(([f"{first} at once"] if first else []) + ([f"{later} at the next one"] if later else [])) or "nothing"


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_sender_into_a_tunnel_is_told_of_errors_about_it(net, row, table):
    """Once; the next datagrams are sent again."""
    net["client"].pin(NO_ICMP_LIMITS)
    entry = TunnelSender(net, *ROWS[row])
    for column in table:
        around, _refused = entry.send()
        if not around:
            table.saw("nothing is sent")
            continue
        table.saw(entry.told(*map(int, column.split("/")), around[-1]))
