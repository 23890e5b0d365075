"""Which of their addresses hosts and routers use as source."""

import socket

import pytest

from fixtures.topologies import ROUTED

pytestmark = pytest.mark.topology(ROUTED)

IP_TOS, IP_OPTIONS = 1, 4
RECORD_ROUTE = 7
LOW_DELAY = 0x10
ECN = {"Not-ECT": 0, "ECT(1)": 1, "ECT(0)": 2, "CE": 3}


@pytest.mark.parametrize("ecn", ECN.values(), ids=ECN)
def test_record_route_gives_the_source_address_of_the_route_chosen_by_tos(net, ecn):
    """For Record Route (RFC 791) the route lookup by TOS ignores the two ECN bits (RFC 3168). Kernels without "ipv4:
    Fix incorrect source address in Record Route option" ignore only one of them."""
    client, router, server = net.nodes("client", "router", "server")
    taken, other = "203.0.113.1", "203.0.113.2"
    for address in (taken, other):
        router.add_address(address)
    to = server.address(socket.AF_INET)
    router.run(["ip", "route", "add", f"{to}/32", "tos", f"{LOW_DELAY:#x}", "dev", "to-server", "src", taken])
    router.run(["ip", "route", "add", f"{to}/32", "dev", "to-server", "src", other])
    with server.socket(socket.AF_INET, socket.SOCK_DGRAM) as inbox, \
            client.socket(socket.AF_INET, socket.SOCK_DGRAM) as outbox:
        inbox.bind((to, 0))
        inbox.settimeout(10)
        outbox.setsockopt(socket.IPPROTO_IP, IP_TOS, LOW_DELAY | ecn)
        outbox.setsockopt(socket.IPPROTO_IP, IP_OPTIONS, bytes([RECORD_ROUTE, 3 + 4 * 3, 4]) + bytes(4 * 3 + 1))
        with server.capture("udp") as packets:
            outbox.sendto(b"x", inbox.getsockname())
            inbox.recv(1)

    packet = packets.received().only()
    sender, by_router, *_empty = recorded(packet)
    assert (sender, by_router) == (client.address(socket.AF_INET), taken)


def recorded(packet):
    """The addresses in the option: RFC 791, 3.1."""
    header = packet.frame.data[14 + 20:]
    assert header[0] == RECORD_ROUTE
    return [socket.inet_ntoa(header[at:at + 4]) for at in range(3, header[1], 4)]


@pytest.mark.parametrize("vrf_has", ["loopback", "link-local", "nothing"])
def test_unnumbered_vrf_interface_uses_a_source_address_of_sufficient_scope(net, family, vrf_has):
    """From another interface of its VRF, not a closer one of smaller scope: RFC 6724, rule 2. Kernels without "ipv6:
    take care of scope when choosing the src addr" give ::1 to packets that leave the host."""
    client = net["client"]
    address, loopback, to = {
        socket.AF_INET: ("203.0.113.1/32", "127.0.0.1/8", "198.51.100.1"),
        socket.AF_INET6: ("2001:db8:ff::1/128", "::1/128", "2001:db8:2::1"),
    }[family]
    client.run(["ip", "link", "add", "vrf-red", "type", "vrf", "table", "10"])
    nodad = "nodad" if family == socket.AF_INET6 else ""
    own = client.interfaces["router"].addresses[family]
    commands = ["link add lender type dummy", "link set lender master vrf-red", "link set lender up",
                "link set vrf-red up", "link set to-router master vrf-red", f"address flush dev to-router to {own.ip}",
                f"address add {address} dev lender {nodad}", f"route add {to} dev to-router vrf vrf-red"]
    if vrf_has == "loopback":
        commands.append(f"address add {loopback} dev vrf-red {nodad}")
    elif vrf_has == "link-local" and family == socket.AF_INET6:
        commands.append("address add fe80::5/64 dev vrf-red nodad")
    client.run(["ip", "-batch", "-"], stdin="\n".join(commands) + "\n")
    sock = client.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"vrf-red")

    sock.connect((to, 4000))

    assert sock.getsockname()[0] == address.split("/")[0]
