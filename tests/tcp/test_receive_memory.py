"""net.ipv4.tcp_rmem: no value that the kernel accepts stalls connections."""

import pytest

from fixtures.topologies import LAN
from netns import deliver, tcp_pair
from netns.attempt import errno_name

pytestmark = pytest.mark.topology(LAN)


@pytest.mark.parametrize("least", [1, 2048, 4096])
def test_connection_receives_data_with_any_accepted_tcp_rmem(net, family, least):
    """The kernel refuses less than a page with EINVAL, or it does no harm; a buffer smaller than a segment would stall
    every connection ("tcp: do not let tcp_rmem be set below 4096")."""
    client, server = net.nodes("client", "server")
    try:
        server.pin({"net.ipv4.tcp_rmem": f"{least} {least} {least}"})
    except OSError as error:
        assert (errno_name(error.errno), least < 4096) == ("EINVAL", True)
        server.pin({"net.ipv4.tcp_rmem": "4096 4096 4096"})
    conn, peer = tcp_pair(client, server, family)

    for _ in range(10):
        deliver(conn, peer, 2_000, within=30)
