"""ICMP errors about the tunnel to a real server, with each option in their own header: what the director relays to the client. Source:
RFC 791, 3.1: options belong to the packet that has them; RFC 792; RFC 2003, 4: errors from within a tunnel are relayed."""

import socket

import pytest

from fixtures.table import Table
from fixtures.topologies import DIRECTED
from netns import ExpectationFailed
from netns.packets import icmp

pytestmark = [
    pytest.mark.topology(DIRECTED),
    # ip_vs_in_icmp_v6() does not handle tunnels.
    pytest.mark.parametrize("family", [socket.AF_INET], ids=["ipv4"], indirect=True),
]

ERRORS = {"fragmentation needed": (3, 4), "host unreachable": (3, 1), "port unreachable": (3, 3), "time exceeded": (11, 0)}
OPTIONS = {
    "none": b"", "no operation": bytes([1] * 4), "40 bytes of no operation": bytes([1] * 40),
    "record route, full": bytes([7, 11, 12]) + bytes(9),
    "record route, room for 9": bytes([7, 39, 4]) + bytes(37), "timestamp, full": bytes([68, 8, 9, 0]) + bytes(4),
    "timestamp, room": bytes([68, 12, 5, 0]) + bytes(8), "router alert": bytes([148, 4, 0, 0]), "security": bytes([130, 4, 0, 0]),
    "experiment of 40 bytes": bytes([30, 40]) + bytes(38),
}
RELAYED = "relayed, quotes the client's packet"
TABLE = Table("ipvs.tunnel_errors", "error", "options of its header", "RFC 791, 3.1; RFC 792; RFC 2003, 4", {
    error: dict.fromkeys(OPTIONS, RELAYED) for error in ERRORS})
# The low byte of the client's port is where a length of an option would be.
FIRST_PORT, STEP = 0x8008, 0x100


def outcome(at_client, client, service, port, kind, code):
    """What the client got."""
    errors = at_client.received()
    if len(errors) != 1:
        return "not relayed" if not errors else f"{len(errors)} errors"
    data = errors.only().frame.data[14:]
    header = 4 * (data[0] & 15)
    if header != 20:
        return "relayed with options"
    if (data[20], data[21]) != (kind, code):
        return f"relayed as {data[20]}/{data[21]}"
    addresses = socket.inet_aton(client.address(socket.AF_INET)) + socket.inet_aton(service.address)
    return RELAYED if data[40:52] == addresses + port.to_bytes(2, "big") + service.port.to_bytes(2, "big") else "relayed, quotes another"


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_director_relays_an_error_without_its_options(net, service, row, table):
    """Nor with those of another packet: the client's error has none, and quotes the client's own packet."""
    client, director, router = net.nodes("client", "director", "router")
    kind, code = ERRORS[row]
    for number, column in enumerate(table):
        port = FIRST_PORT + STEP * number
        conn = client.socket(socket.AF_INET)
        conn.bind((client.address(socket.AF_INET), port))
        with director.capture() as packets:
            conn.connect((service.address, service.port))
        tunnelled = packets.sent().which("in IPIP", lambda packet: packet.ip and packet.ip.version == 4
                                         and packet.ip.proto == socket.IPPROTO_IPIP)[0]
        with client.capture("icmp") as at_client:
            icmp.send_error(router, director, kind, code, icmp.quote(tunnelled), rest=1400, counted=False, options=OPTIONS[column])
            try:
                at_client.until("an ICMP error", len, within=1)
            except ExpectationFailed:
                pass
        table.saw(outcome(at_client, client, service, port, kind, code))
