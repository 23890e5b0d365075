"""Limits on the number of connections: iptables-extensions(8), connlimit; nft(8), ct count."""

import socket

import pytest

from fixtures.topologies import LAN
from netns import TICK, CommandError, missing_feature
from netns.traffic.closing import fence

pytestmark = pytest.mark.topology(LAN)

LOCALHOST = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
PORT, LIMIT = 80, 2


def limit_by_iptables(host, family):
    tool, words = ("ip6tables-legacy", "128") if family == socket.AF_INET6 else ("iptables-legacy", "32")
    host.run([tool, "-w", "-A", "INPUT", "-p", "tcp", "--syn", "--dport", str(PORT), "-m", "connlimit",
              "--connlimit-above", str(LIMIT), "--connlimit-mask", words, "-j", "REJECT", "--reject-with", "tcp-reset"])


def limit_by_nft(host, _family):
    host.nft(f"""
        add table inet kdrift
        add chain inet kdrift input {{ type filter hook input priority 0; }}
        add rule inet kdrift input tcp dport {PORT} ct state new ct count over {LIMIT} reject with tcp reset
    """)


@pytest.mark.parametrize("limit", [limit_by_iptables, limit_by_nft], ids=["connlimit", "ct count"])
@pytest.mark.parametrize("origin", ["localhost", "a peer"])
def test_connections_over_the_limit_are_refused(net, family, clock, limit, origin):
    """From peers and from localhost; a connection that is reset makes room again. Kernels without "netfilter:
    nf_conncount: fix tracking of connections from localhost" do not count those over lo."""
    client, server = net.nodes("client", "server")
    try:
        limit(server, family)
    except CommandError as error:
        raise missing_feature("no match for a connection limit", error) from error
    listener = server.socket(family)
    listener.bind((LOCALHOST[family] if origin == "localhost" else server.address(family), PORT))
    listener.listen()

    def connected():
        conn = (server if origin == "localhost" else client).socket(family)
        conn.settimeout(5)
        try:
            conn.connect(listener.getsockname()[:2])
        except ConnectionRefusedError:
            return None
        return conn

    conns = [connected() for _ in range(LIMIT + 3)]

    assert [conn is not None for conn in conns] == [True, True, False, False, False]
    conns[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    conns[0].close()
    fence(client, server, server.address(family))
    clock.sleep(2 * TICK)                   # The kernel updates the count at most once per jiffy.
    again = [connected() for _ in range(2)]
    assert [conn is not None for conn in again] == [True, False]
