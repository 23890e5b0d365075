"""Path MTU discovery modes of a UDP socket (IP_MTU_DISCOVER, ip(7)), and what it reports (IP_RECVERR, IP_MTU)."""

import errno
import select
import socket
import struct

import pytest

from fixtures.topologies import NARROW
from netns import deliver, eventually, tcp_info
from netns.attempt import refused
from netns.named import NamedList
from netns.packets import icmp, pmtu

pytestmark = pytest.mark.topology(NARROW)

# include/uapi/linux/in.h and in6.h
IP_MTU_DISCOVER, IP_RECVERR, IP_MTU = 10, 11, 14
IPV6_MTU_DISCOVER, IPV6_MTU, IPV6_RECVERR = 23, 24, 25
DONT, WANT, DO, PROBE, INTERFACE, OMIT = range(6)
# include/uapi/linux/errqueue.h
LOCAL, ICMP, ICMP6 = 1, 2, 3
LEVEL = {socket.AF_INET: socket.IPPROTO_IP, socket.AF_INET6: socket.IPPROTO_IPV6}
FRAGMENTS = {socket.AF_INET: "Ip.FragCreates", socket.AF_INET6: "Ip6.FragCreates"}
HEADERS = {socket.AF_INET: 28, socket.AF_INET6: 48}


def udp_to_server(net, family, mode, recverr=False):
    """A client UDP socket with this discovery mode, connected to a server socket; and that socket."""
    client, server = net.nodes("client", "server")
    ours, theirs = (host.socket(family, socket.SOCK_DGRAM) for host in (client, server))
    theirs.bind((server.address(family), 0))
    theirs.settimeout(5)
    ours.setsockopt(LEVEL[family], IP_MTU_DISCOVER if family == socket.AF_INET else IPV6_MTU_DISCOVER, mode)
    ours.setsockopt(LEVEL[family], IP_RECVERR if family == socket.AF_INET else IPV6_RECVERR, int(recverr))
    ours.connect(theirs.getsockname()[:2])
    return ours, theirs


def mtu_of(conn, family):
    return conn.getsockopt(LEVEL[family], IP_MTU if family == socket.AF_INET else IPV6_MTU)


def learn(net, family):
    """Send 1500 bytes that must not be fragmented over the link of 1400; returns the socket."""
    ours, _theirs = udp_to_server(net, family, DO)
    ours.send(bytes(1500 - HEADERS[family]))
    eventually("IP_MTU of the client's socket", lambda: mtu_of(ours, family), 1400, within=5)
    return ours


def error_queued(conn):
    """(errno, origin, type, code, info) of the first error in the socket's queue: struct sock_extended_err."""
    poll = select.poll()
    poll.register(conn, select.POLLERR)
    assert poll.poll(5000), "no event on the client's socket within 5 s"
    _data, ancillary, _flags, _address = conn.recvmsg(2048, 512, socket.MSG_ERRQUEUE)
    _level, _type, error = NamedList("control messages of the client's error queue", ancillary).only()
    number, origin, kind, code, _pad, info, _more = struct.unpack_from("=IBBBBII", error)
    return number, origin, kind, code, info


@pytest.mark.parametrize("mode, fragments, df", [
    (DONT, 2, False), (WANT, 2, False), (INTERFACE, 0, False), (OMIT, 0, False), (PROBE, 0, True),
], ids=["dont", "want", "interface", "omit", "probe"])
def test_discovery_mode_decides_how_a_datagram_over_the_path_mtu_is_sent(net, family, mode, fragments, df):
    """1500 bytes over a known path MTU of 1400. DONT and WANT fragment at once; INTERFACE and OMIT send up to the
    interface's MTU and leave fragmentation to the router; PROBE sends them whole with DF. IPv6 has no DF."""
    client, server = net.nodes("client", "server")
    learn(net, family)
    ours, theirs = udp_to_server(net, family, mode)
    before = client.counters()
    with client.capture("udp") as packets:
        ours.send(bytes(1500 - HEADERS[family]))
        if family == socket.AF_INET:
            packets.until("the datagram or its first fragment", lambda seen: seen.sent(), within=5)

    assert client.counters().since(before)[FRAGMENTS[family]] == fragments
    if family == socket.AF_INET:
        assert str(packets.sent()[0].ip.flags) == ("DF" if df else "MF" if fragments else "")
    if fragments or family == socket.AF_INET and not df:
        assert len(theirs.recv(2000)) == 1500 - HEADERS[family]
    assert pmtu.path(client, server.address(family)).mtu == 1400


def test_path_mtu_of_loopback_is_65535_over_ipv4_and_65536_over_ipv6(net, family):
    """IPv4's total length ends at 65535 bytes, lo's MTU is one more; IPv6's payload length excludes the header."""
    client = net["client"]
    with client.socket(family, socket.SOCK_DGRAM) as ours:
        ours.connect((client.address(family), 9))
        assert mtu_of(ours, family) == (65535 if family == socket.AF_INET else 65536)


def test_udp_socket_with_so_dontroute_learns_the_path_mtu_to_a_neighbour(net, family):
    """SO_DONTROUTE (socket(7)): it accepts an error about a packet to a host of its own network."""
    client, router = net.nodes("client", "router")
    ours = client.socket(family, socket.SOCK_DGRAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
    ours.connect((router.address(family, "client"), 4000))

    icmp.send_too_big(router, client, 1300, icmp.udp_quote(*ours.getsockname()[:2], *ours.getpeername()[:2]))

    assert mtu_of(ours, family) == 1300


def test_tcp_connection_with_so_dontroute_learns_the_path_mtu_to_a_neighbour(net, family):
    """As for UDP: the announced MTU becomes the path MTU."""
    client, router = net.nodes("client", "router")
    conn = client.socket(family)
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
    listener = router.socket(family)
    listener.bind((router.address(family, "client"), 0))
    listener.listen()
    conn.connect(listener.getsockname()[:2])
    peer = router.adopt(listener.accept()[0])
    with client.capture("tcp") as packets:
        deliver(conn, peer, 1)

    icmp.send_too_big(router, client, 1300, icmp.quote_next(packets.sent()[0]))

    deliver(conn, peer, 5000)
    assert (tcp_info(conn).pmtu, pmtu.path(client, router.address(family, "client")).mtu) == (1300, 1300)


@pytest.mark.parametrize("mode", [INTERFACE, OMIT], ids=["interface", "omit"])
def test_interface_and_omit_modes_ignore_a_spoofed_error(net, family, measure, mode):
    """They ignore errors "to prevent accepting spoofed ones" (include/uapi/linux/in.h): their packets stay whole.
    Whether the error affects the host's other sockets is measured: in later kernels it does, since they create the exception before they
    look for the socket (4c3499f79f8c for IPv4, ac76cab50e89 for IPv6)."""
    client, server, router = net.nodes("client", "server", "router")
    ours, _theirs = udp_to_server(net, family, mode)
    source, destination = ours.getsockname(), ours.getpeername()
    quoted = icmp.udp_quote(source[0], source[1], destination[0], destination[1])
    icmp.send_too_big(router, client, 1300, quoted)
    # Over IPv4 the socket gets the error itself like any other.
    ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    with client.capture("udp") as packets:
        ours.send(bytes(1400 - HEADERS[family]))

    assert [packet.frame.length - 14 for packet in packets.sent()] == [1400]
    moved = pmtu.path(client, server.address(family)).mtu == 1300
    measure("pmtu.spoofed_error_moves_the_route", int(moved), "exceptions")


def test_mode_do_refuses_a_datagram_over_the_path_mtu(net, family):
    """One byte more than the path MTU is EMSGSIZE, a datagram of exactly the path MTU arrives (ip(7),
    IP_PMTUDISC_DO)."""
    learn(net, family)
    ours, theirs = udp_to_server(net, family, DO)
    with refused("EMSGSIZE", f"send() of {1400 - HEADERS[family] + 1} bytes over a path MTU of 1400"):
        ours.send(bytes(1400 - HEADERS[family] + 1))

    ours.send(bytes(1400 - HEADERS[family]))
    assert len(theirs.recv(2000)) == 1400 - HEADERS[family]


def test_ip_mtu_returns_the_path_mtu_of_a_connected_socket(net, family):
    """IP_MTU (IPV6_MTU): first the link's MTU, after an error the path's; ENOTCONN without a destination."""
    client = net["client"]
    ours, _theirs = udp_to_server(net, family, DO)
    assert mtu_of(ours, family) == 1500
    assert mtu_of(learn(net, family), family) == 1400
    assert mtu_of(udp_to_server(net, family, WANT)[0], family) == 1400

    with client.socket(family, socket.SOCK_DGRAM) as idle, refused("ENOTCONN", "IP_MTU of a socket that is not connected"):
        mtu_of(idle, family)


def test_error_queue_reports_a_routers_icmp_error(net, family):
    """IP_RECVERR: EMSGSIZE, origin ICMP, with its type and code, and the MTU as info (ip(7))."""
    ours, _theirs = udp_to_server(net, family, DO, recverr=True)
    ours.send(bytes(1500 - HEADERS[family]))

    origin = (ICMP, 3, 4) if family == socket.AF_INET else (ICMP6, 2, 0)
    assert error_queued(ours) == (errno.EMSGSIZE, *origin, 1400)


def test_error_queue_reports_a_datagram_that_the_host_refused(net, family):
    """EMSGSIZE for a datagram that never left: origin local, the MTU as info."""
    learn(net, family)
    ours, _theirs = udp_to_server(net, family, DO, recverr=True)
    with refused("EMSGSIZE", f"send() of {1500 - HEADERS[family]} bytes over a path MTU of 1400"):
        ours.send(bytes(1500 - HEADERS[family]))

    assert error_queued(ours) == (errno.EMSGSIZE, LOCAL, 0, 0, 1400)
