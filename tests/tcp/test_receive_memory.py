"""net.ipv4.tcp_rmem: whatever an administrator may write there, connections go on."""

import pytest

from fixtures.topologies import LAN
from netns import deliver, tcp_pair
from netns.attempt import name

pytestmark = pytest.mark.topology(LAN)


@pytest.mark.parametrize("least", [1, 2048, 4096])
def test_a_receive_buffer_that_may_be_set_still_takes_data(net, family, least):
    """Less than a page is refused with EINVAL, or does no harm; a buffer that no segment fits into would stall every
    connection ("tcp: do not let tcp_rmem be set below 4096")."""
    client, server = net.nodes("client", "server")
    try:
        server.pin({"net.ipv4.tcp_rmem": f"{least} {least} {least}"})
    except OSError as error:
        assert (name(error.errno), least < 4096) == ("EINVAL", True)
        server.pin({"net.ipv4.tcp_rmem": "4096 4096 4096"})
    conn, peer = tcp_pair(client, server, family)

    for _ in range(10):
        deliver(conn, peer, 2_000, within=30)
