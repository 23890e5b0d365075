"""What waited for an SA that never came is given back."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import xfrm

pytestmark = pytest.mark.topology(LAN)
TIMES = 20


def test_datagrams_without_an_sa_are_given_back(peers, larval_drop, given_back):
    """Dropped at once (make_blackhole())."""
    larval_drop(1)
    peers.add_policy(socket.SOCK_DGRAM)
    client = peers.udp_client()

    def use():
        for _ in range(TIMES):
            client.sendto(b"lost", peers.target)

    given_back(use, TIMES)


def test_held_datagrams_are_given_back_with_their_policy(peers, larval_drop, given_back):
    """Held until the policy is deleted (xfrm_policy_queue_process(), xfrm_queue_purge())."""
    larval_drop(0)
    client = peers.udp_client()

    def use():
        policy = peers.add_policy(socket.SOCK_DGRAM)
        for _ in range(TIMES):
            client.sendto(b"held", peers.target)
        xfrm.delete(peers.client, policy)

    given_back(use, TIMES)
