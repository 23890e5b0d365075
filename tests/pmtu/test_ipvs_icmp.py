"""ICMP errors about the tunnel to a real server, which the director relays to the client: ip_vs_in_icmp()."""

import socket

import pytest

from fixtures.topologies import DIRECTED
from netns.packets import icmp

pytestmark = [
    pytest.mark.topology(DIRECTED),
    # ip_vs_in_icmp_v6() does not handle tunnels.
    pytest.mark.parametrize("family", [socket.AF_INET], ids=["ipv4"], indirect=True),
]

FRAGMENTATION_NEEDED, HOST_UNREACHABLE, TIME_EXCEEDED = (3, 4), (3, 1), (11, 0)
# Record Route (RFC 791), with room for more addresses and without.
ROOM, FULL = bytes([7, 39, 4]) + bytes(37), bytes([7, 11, 12]) + bytes(9)


@pytest.mark.parametrize("options", [b"", FULL, ROOM], ids=["plain", "full", "room"])
@pytest.mark.parametrize("kind, code", [FRAGMENTATION_NEEDED, HOST_UNREACHABLE, TIME_EXCEEDED])
def test_director_relays_a_tunnel_error_quoting_the_clients_own_packet(net, service, kind, code, options):
    """The client's error has neither the tunnel's header nor IP options in reply to the router's. Kernels without
    "ipvs: clear IPv4 options after rebasing tunnel ICMP errors" take bytes of the client's TCP header for options."""
    client, director, router = net.nodes("client", "director", "router")
    conn = client.socket(socket.AF_INET)
    # The ports are now where the options were: such a kernel takes the low byte of the client's port for an option
    # length, and the server's port for the pointer.
    conn.bind((client.address(socket.AF_INET), 0x8008))
    with director.capture() as packets:
        conn.connect((service.address, service.port))
    tunnelled = packets.sent().which("in IPIP", lambda packet: packet.ip and packet.ip.version == 4
                                     and packet.ip.proto == socket.IPPROTO_IPIP)[0]

    with client.capture("icmp") as at_client:
        icmp.send_error(router, director, kind, code, icmp.quote(tunnelled), rest=1400, counted=False, options=options)
        at_client.until("an ICMP error", len, within=5)

    error = at_client.received().only()
    data = error.frame.data[14:]
    assert (data[0], error.ip.src, data[20], data[21]) == (0x45, service.address, kind, code)
    quoted = data[28:]
    assert quoted[12:24] == (socket.inet_aton(client.address(socket.AF_INET)) + socket.inet_aton(service.address)
                             + (0x8008).to_bytes(2, "big") + service.port.to_bytes(2, "big"))
