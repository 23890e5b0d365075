"""rp_filter, which asks whether a packet came by the way back to its source, and marks that choose another way. Source: ip-sysctl.rst,
rp_filter and src_valid_mark; RFC 3704."""

import pytest

from fixtures.gate import V4, Gate
from fixtures.topologies import LAN

pytestmark = pytest.mark.topology(LAN)

FOREIGN, MARK, PORT = "198.18.0.9", 7, 7000


@pytest.fixture
def gate(net):
    """The server has a route to the client's foreign source only in a table for packets with the mark, and the mark is set on arrival."""
    client, server = net.nodes("client", "server")
    client.add_address(f"{FOREIGN}/32", "server")
    server.run(["ip", "-batch", "-"], stdin=f"route add {FOREIGN} via {client.address(V4)} table 100\nrule add fwmark {MARK} lookup 100\n")
    server.nft("add table inet marks\nadd chain inet marks pre { type filter hook prerouting priority -150; }\n"
               f"add rule inet marks pre udp dport {PORT} meta mark set {MARK}")
    return Gate(client, server, V4)


@pytest.mark.parametrize("strictness", [1, 2], ids=["strict", "loose"])
def test_reverse_path_is_looked_up_with_the_mark_only_with_src_valid_mark(gate, strictness):
    """src_valid_mark=0 leaves the mark out: the packet is dropped and counted, also in loose mode if there is no other route; 1 includes
    it. wg-quick and mesh proxies set it for that (tailscale #3310, #19796)."""
    server = gate.server
    server.pin({"net.ipv4.conf.to-client.rp_filter": strictness})
    before = server.counter("TcpExt.IPReversePathFilter")
    assert gate.passed(PORT, source=(FOREIGN, 0)) == 0
    assert server.counter("TcpExt.IPReversePathFilter") - before == 1
    server.pin({"net.ipv4.conf.to-client.src_valid_mark": 1})

    assert (gate.passed(PORT, source=(FOREIGN, 0)), gate.passed(PORT + 1, source=(FOREIGN, 0))) == (1, 0)


def test_stricter_value_of_all_and_of_the_interface_counts(gate):
    """The maximum of conf/{all,interface}/rp_filter (ip-sysctl.rst): 0 and 0 let the packet in, 1 in either place does not."""
    found = []
    for everywhere, here in ((0, 0), (1, 0), (0, 1), (0, 0)):
        gate.server.pin({"net.ipv4.conf.all.rp_filter": everywhere, "net.ipv4.conf.to-client.rp_filter": here})
        found.append(gate.passed(PORT, source=(FOREIGN, 0)))

    assert found == [1, 0, 0, 1]


def test_loose_mode_takes_any_way_back(gate):
    """RFC 3704, 2.4: the source is reachable by any interface. Strict mode wants the one by which the packet came (2.2)."""
    server, found = gate.server, []
    server.run(["ip", "-batch", "-"], stdin=f"link add dummy0 type dummy\nlink set dummy0 up\nroute add {FOREIGN} dev dummy0\n")
    for value in (1, 2):
        server.pin({"net.ipv4.conf.to-client.rp_filter": value})
        found.append(gate.passed(PORT + 1, source=(FOREIGN, 0)))

    assert found == [0, 1]
