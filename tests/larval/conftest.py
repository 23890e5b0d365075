"""A client whose policy requires ESP to the server, and that has no SA yet."""

import array
import fcntl
import os
import select
import socket
import termios

import pytest

import netns
from fixtures.net import KEPT
from netns.hosts.sysctl import missing_sysctl
from netns.netlink import xfrm

# Since 6.5 the first SYN retransmissions are 1 s apart. With 0 they come after 1 s, 3 s, 7 s, ... on every kernel.
LINEAR_TIMEOUTS = "net.ipv4.tcp_syn_linear_timeouts"


class Receiver:
    """The server's UDP socket. When no datagram arrives, ExpectationFailed gives the Xfrm counters of both hosts."""

    PATIENCE = 30

    def __init__(self, peers: "Peers", port: int) -> None:
        self._peers = peers
        self._socket = peers.server.socket(peers.family, socket.SOCK_DGRAM)
        self._socket.bind((peers.there, port))
        self._socket.settimeout(self.PATIENCE)

    def recv(self, size: int) -> bytes:
        return self.recvfrom(size)[0]

    def recvfrom(self, size: int) -> tuple[bytes, tuple]:
        try:
            return self._socket.recvfrom(size)
        except TimeoutError:
            counted = {
                host.role: {name: value for name, value in host.counters().nonzero().items() if name.startswith("Xfrm")}
                for host in (self._peers.client, self._peers.server)
            }
            raise netns.ExpectationFailed(
                f"server received no datagram within {self.PATIENCE} s; nonzero Xfrm counters: {counted}") from None

    def sendto(self, data: bytes, address: tuple) -> None:
        self._socket.sendto(data, address)


class Peers:
    """Client and server of ESP traffic. add_policy() adds the client's policy, add_sa() the client's outbound SA,
    ready() everything else.

    The policies cover only TCP or UDP, so that neighbour discovery needs no SA.
    """

    PORT = 4000
    SPI_OUT, SPI_IN = 0x1000C0DE, 0x2000C0DE

    def __init__(self, client: netns.Host, server: netns.Host, family: socket.AddressFamily) -> None:
        self.client, self.server, self.family = client, server, family
        self.here, self.there = client.address(family), server.address(family)
        self.target = (self.there, self.PORT)

    def policy(self, kind: socket.SocketKind, port: int = PORT, reqid: int = 1) -> xfrm.Policy:
        """The client's packets to this port of the server require ESP."""
        protocol = socket.IPPROTO_TCP if kind == socket.SOCK_STREAM else socket.IPPROTO_UDP
        selector = xfrm.Selector(self.here, self.there, protocol, dport=port)
        return xfrm.Policy(selector, xfrm.Template(self.here, self.there, reqid))

    def add_policy(self, kind: socket.SocketKind, port: int = PORT, reqid: int = 1) -> xfrm.Policy:
        policy = self.policy(kind, port, reqid)
        xfrm.add(self.client, policy)
        return policy

    def sa(self, reqid: int = 1) -> xfrm.SA:
        """The client's outbound SA."""
        return xfrm.SA(self.here, self.there, self.SPI_OUT + reqid - 1, reqid)

    def add_sa(self, reqid: int = 1) -> None:
        xfrm.add(self.client, self.sa(reqid))

    def ready(self, *reqids: int) -> None:
        """The server accepts the client's ESP and answers from PORT in ESP; the client accepts that."""
        back = xfrm.SA(self.there, self.here, self.SPI_IN)
        xfrm.add(self.server, back, *self.answers(), *map(self.sa, reqids or (1,)))
        xfrm.add(self.client, back)

    def answers(self) -> list[xfrm.Policy]:
        """The server's outbound policies."""
        template = xfrm.Template(self.there, self.here)
        return [
            xfrm.Policy(xfrm.Selector(self.there, self.here, protocol, sport=self.PORT), template)
            for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
        ]

    def tcp_listener(self) -> socket.socket:
        listener = self.server.socket(self.family)
        listener.bind(self.target)
        listener.listen()
        return listener

    def tcp_client(self) -> socket.socket:
        conn = self.client.socket(self.family)
        conn.setblocking(False)
        return conn

    def udp_server(self, port: int = PORT) -> Receiver:
        return Receiver(self, port)

    def udp_client(self) -> socket.socket:
        """A bound socket, so that all its packets belong to one flow."""
        client = self.client.socket(self.family, socket.SOCK_DGRAM)
        client.bind((self.here, 0))
        return client

    def sa_count(self) -> int:
        """The number of the client's SAs, larval ones included."""
        return int(self.client.run(["ip", "xfrm", "state", "count"]).split()[-1])


@pytest.fixture
def peers(net, family):
    client, server = net.nodes("client", "server")
    client.pin({"net.ipv4.tcp_syn_retries": 6})
    try:
        client.pin({LINEAR_TIMEOUTS: 0})
    except FileNotFoundError:
        pass
    return Peers(client, server, family)


# Only the defect itself reveals an affected kernel, and it stops the machine: 5.10.262 is affected, 6.1.192 and later are not.
_RELEASES_THE_DEVICE = (6, 1)


@pytest.fixture
def larval_drop(net, family, clock):
    """larval_drop(0 or 1) sets net.core.xfrm_larval_drop on a host, and net.core.xfrm_acq_expires in seconds
    (Documentation/networking/xfrm_sysctl.rst).

    On 5.10 a packet held over IPv6 leaks a reference to its interface. The namespace can then not be removed
    ("unregister_netdevice: waiting for lo to become free"), and whatever waits for that hangs: loading nf_tables,
    creating a namespace. There the fixture keeps the namespace, and requires a machine of its own.
    """
    leaks = tuple(map(int, os.uname().release.split(".")[:2])) < _RELEASES_THE_DEVICE and family == socket.AF_INET6

    def pin(value: int, acq_expires: int = 30, role: str = "client") -> None:
        if value == 0 and leaks:
            if clock.kind != "virtual":
                pytest.skip("needs its own machine: this kernel leaks a device reference for each packet held over IPv6")
            KEPT.extend(os.dup(host.namespace.descriptor) for host in net.hosts.values())
        try:
            net[role].pin({"net.core.xfrm_larval_drop": value, "net.core.xfrm_acq_expires": acq_expires})
        except FileNotFoundError:
            raise missing_sysctl("net.core.xfrm_larval_drop") from None
    return pin


@pytest.fixture
def charged():
    """charged(socket): the bytes of memory that its unsent packets occupy, headers included (SIOCOUTQ, udp(7))."""
    def ask(sock: socket.socket) -> int:
        answer = array.array("i", [0])
        fcntl.ioctl(sock, termios.TIOCOUTQ, answer)
        return answer[0]
    return ask


@pytest.fixture
def writable():
    """writable(socket, within): wait until the socket is writable; False after that many seconds."""
    def wait(sock: socket.socket, within: float) -> bool:
        return bool(select.select([], [sock], [], within)[1])
    return wait
