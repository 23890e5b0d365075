"""What the kernel makes of the particulars of an SA: its mark, its selector."""

import dataclasses
import socket

import pytest
from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST

from fixtures.topologies import LAN
from netns.attempt import refused
from netns.netlink import rtnl, xfrm, xfrm_wire as wire
from netns.netlink.message import message

pytestmark = pytest.mark.topology(LAN)

# From the start of struct xfrm_usersa_info: daddr, saddr, two ports with masks, family, prefixlen_d.
PREFIXLEN_S = 16 + 16 + 8 + 2 + 1
NETLINK_XFRM = 6


def mark_incoming_esp(host, mark):
    host.nft(f"""
        add table inet kdrift
        add chain inet kdrift early {{ type filter hook prerouting priority -150; }}
        add rule inet kdrift early meta l4proto esp meta mark set {mark:#x} counter
    """)


@pytest.mark.parametrize("value", [0x0A00, 0x3A0F], ids=("within the mask", "beyond the mask"))
def test_sa_matches_packets_whose_mark_is_equal_under_its_mask(peers, value):
    """Bits of an SA's mark outside its mask do not count ("xfrm: Sanitize marks before insert")."""
    mask, on_packets = 0x0F00, 0xFA55
    mark_incoming_esp(peers.server, on_packets)
    xfrm.add(peers.server, dataclasses.replace(peers.sa(), mark=(value, mask)))
    peers.add_policy(socket.SOCK_DGRAM)
    peers.add_sa()
    server, client = peers.udp_server(), peers.udp_client()

    client.sendto(b"marked", peers.target)

    assert server.recv(100) == b"marked"
    assert peers.server.counter("XfrmInNoStates") == 0


def test_sa_does_not_match_packets_with_another_mark(peers):
    """XfrmInNoStates counts them."""
    mark_incoming_esp(peers.server, 0x0B00)
    xfrm.add(peers.server, dataclasses.replace(peers.sa(), mark=(0x0A00, 0x0F00)))
    peers.add_policy(socket.SOCK_DGRAM)
    peers.add_sa()
    other = peers.udp_server(peers.PORT + 1)
    client = peers.udp_client()

    client.sendto(b"lost", peers.target)
    client.sendto(b"in the clear", (peers.there, peers.PORT + 1))

    assert other.recv(100) == b"in the clear"
    assert peers.server.counter("XfrmInNoStates") == 1


def test_sa_selector_with_prefixlen_beyond_the_address_is_refused(peers):
    """A prefix longer than the address fits none, also where the selector leaves the family to the SA: EINVAL ("xfrm:
    validate new SA's prefixlen using SA family when sel.family is unset")."""
    # Without ESP in the kernel this would be refused for another reason.
    xfrm.add(peers.server, peers.sa())
    xfrm.delete(peers.server, peers.sa())
    body = bytearray(wire.sa(peers.sa()))
    body[PREFIXLEN_S] = 129 if peers.family == socket.AF_INET6 else 33
    request = message(wire.NEWSA, NLM_F_REQUEST | NLM_F_ACK, bytes(body))

    with refused("EINVAL", "XFRM_MSG_NEWSA with an invalid prefix length"):
        rtnl.exchange(peers.server.namespace, NETLINK_XFRM, [request], [body])
