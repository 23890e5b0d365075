"""The route of a held packet does not leak."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import build, stopwatch
from netns.netlink import xfrm
from netns.observe import slab


# IPv4 only: with the route of a held IPv6 packet its interface may leak too, and whatever waits for it hangs (larval_drop). Where that
# happens, hosts of earlier tests are kept, and the number of their IPv6 routes varies.
@pytest.mark.virtual_clock("counts slab objects of the whole machine, after all RCU callbacks")
def test_route_of_a_held_packet_is_freed_with_its_namespace():
    """A gateway that runs for years holds packets for each SA that is late (xfrm_larval_drop=0): 100 hosts leave nothing."""
    slopes = slab.slopes(slab.ROUTES[socket.AF_INET], hold)

    assert {name for name, slope in slopes.items() if slope > 0.5} == set()


def hold(count):
    """So many hosts hold a packet, which is delivered once its SA is there. Their routes are their own: a leak shows with their end."""
    for _ in range(count):
        with build(LAN) as net:
            client, server = net.nodes("client", "server")
            client.pin({"net.core.xfrm_larval_drop": 0})
            here, there = (host.address(socket.AF_INET) for host in (client, server))
            sa = xfrm.SA(here, there, spi=0x1000)
            xfrm.add(client, xfrm.Policy(xfrm.Selector(here, there, socket.IPPROTO_UDP), xfrm.Template(here, there)))
            xfrm.add(server, sa)
            inbox, sender = server.socket(socket.AF_INET, socket.SOCK_DGRAM), client.socket(socket.AF_INET, socket.SOCK_DGRAM)
            inbox.bind((there, 4000))
            inbox.settimeout(10)
            with stopwatch() as took:
                sender.sendto(b"x", (there, 4000))
                xfrm.add(client, sa)
                assert inbox.recv(1) == b"x"
            assert took.seconds > 0.05      # it was held: the timer's first interval is 0.1 s
