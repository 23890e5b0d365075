"""A listener in one namespace hears what happens there, and nothing of another."""

from fixtures.topologies import LAN
from netns import build
from netns.observe.bystander import Bystander


def test_a_listener_hears_its_own_namespace_only():
    with build(LAN) as net:
        client, server = net.nodes("client", "server")
        with client.entered():
            listener = Bystander()
        listener.heard()

        server.add_address("203.0.113.9")
        assert listener.heard() == []

        client.add_address("203.0.113.9")
        assert set(listener.heard()) >= {"RTM_NEWADDR", "RTM_NEWROUTE"}
