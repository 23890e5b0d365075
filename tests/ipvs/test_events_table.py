"""What clients of an IPVS service see when something happens: every forwarding method, kind of service and family."""

import select
import socket
from contextlib import contextmanager
from typing import Union

import pytest

from fixtures.balanced import BALANCED, FIRST_PORT, METHODS, NARROW_MTU, SERVICES, V4, V6, BalancedConnection, BalancedService, Director
from fixtures.table import LeftOut, Measured, Must, Table
from netns import deliver, tcp_info
from netns.attempt import errno_name, so_error
from netns.hosts import offload
from netns.hosts.pinned import NO_ICMP_LIMITS
from netns.packets import icmp, pmtu

pytestmark = pytest.mark.topology(BALANCED)

FAMILIES = {"IPv4": (V4, V4), "IPv6": (V6, V6), "IPv4 to IPv6 servers": (V4, V6), "IPv6 to IPv4 servers": (V6, V4)}
ADMIN, SYSCTL = "ipvsadm(8)", "Documentation/networking/ipvs-sysctl.rst"
SAID_BY_SERVER = 1300                           # bytes: the path MTU that an error from outside announces
# Level and option: IP_RECVERR (ip(7)), IPV6_RECVERR (ipv6(7)).
RECVERR = {V4: (socket.IPPROTO_IP, 11), V6: (socket.IPPROTO_IPV6, 25)}
BIG = bytes(range(250)) * 16


def rows() -> dict[str, tuple]:
    """Servers of another family are reached through tunnels alone (ip_vs_ctl.c); of these the service is always a port."""
    return {f"{method.name}, {service}, {name}": (method, service, *families) for method in METHODS for service in SERVICES
            for name, families in FAMILIES.items()
            if families[0] == families[1] or method.added is not None and service == "port"}


def expected(method, service, family, outer) -> dict[str, Union[str, Must, Measured, LeftOut]]:
    persistent = service == "persistent"
    new = "the same server twice" if persistent else "the other server twice"
    mtu = NARROW_MTU - method.overhead(outer)
    return {
        # Round robin (ipvsadm(8), --scheduler rr); --persistent: all connections of a client go to the server of the first.
        "four connections": "4 and 0" if persistent else "2 and 2",
        "weight 0": Must(f"established works, new ones go to {new}",
                         f"{ADMIN}, --weight: it gets no new jobs but still serves; {SYSCTL}, expire_quiescent_template"),
        "weight 0, templates expire": Must("established works, new ones go to the other server twice",
                                           f"{SYSCTL}, expire_quiescent_template")
        if persistent else LeftOut("only persistent services have templates"),
        "server gone": Must("established is silent, new ones go to the other server twice", f"{SYSCTL}, expire_nodest_conn"),
        "server gone and back": Must("established works", f"{SYSCTL}, expire_nodest_conn"),
        "server gone, connections expire": Must("established gets ECONNRESET", f"{SYSCTL}, expire_nodest_conn"),
        "one connection each": Measured("no document says whether a template outweighs the threshold") if persistent
        else Must("both servers, then ECONNREFUSED", f"{ADMIN}, --u-threshold"),
        "both of weight 0": "ECONNREFUSED",
        "MTU": Must(f"delivered, path MTU {mtu}", f"RFC 1191, RFC 8201; {SYSCTL}, pmtu_disc"),
        "MTU, segmentation offload": Must(f"delivered, path MTU {mtu}",
                                          f"RFC 1191, RFC 8201; {SYSCTL}, pmtu_disc: the segments of a large packet count"),
        "large datagram": Must("echoed" if family == V4 else f"too big for {mtu}, then echoed", "RFC 791, 3.2; RFC 8200, 5"),
        "error from inside": Must("ECONNREFUSED", "RFC 1122, 4.1.3.3"),
        "error from outside": Must(f"server learns {SAID_BY_SERVER}", "RFC 1191, 6; RFC 8201, 4"),
        "no route to the server": Measured("no document says what the client is told"),
        "client on the director": "works",
    }


EVENTS = Table("ipvs.events", "method, service and family", "event", ADMIN, {name: expected(*row) for name, row in rows().items()})
DATAGRAMS = ("large datagram", "error from inside", "no route to the server")


class Clients:
    """What the clients of each service see; one service for each column, so that no event touches another's."""

    def __init__(self, director: Director, columns: list[str]) -> None:
        self.director = director
        self.client, self.host = director.client, director.host
        self.ports = {column: FIRST_PORT + number for number, column in enumerate(columns)}

    @contextmanager
    def sysctl(self, name: str):
        self.host.sysctl(f"net.ipv4.vs.{name}", 1)
        yield
        self.host.sysctl(f"net.ipv4.vs.{name}", 0)

    def show(self, column: str) -> str:
        ways = {
            "four connections": self.four, "weight 0": self.quiesced, "weight 0, templates expire": self.quiesced_expiring,
            "server gone": self.gone, "server gone and back": self.back, "server gone, connections expire": self.expired,
            "one connection each": self.overloaded, "both of weight 0": self.none_left, "MTU": self.mtu,
            "MTU, segmentation offload": self.mtu_of_large_packets, "large datagram": self.large,
            "error from inside": self.inside, "error from outside": self.outside, "no route to the server": self.no_route,
            "client on the director": self.local,
        }
        port = self.ports[column]
        self.director.forget()
        return ways[column](port if column in DATAGRAMS else BalancedService(self.director, port))

    def four(self, service: BalancedService) -> str:
        servers = [service.connect(self.client).server for _ in range(4)]
        return " and ".join(str(count) for count in sorted((servers.count(0), servers.count(1)), reverse=True))

    def new(self, service: BalancedService, old: BalancedConnection) -> str:
        """Where two more connections go."""
        found = [service.connect(self.client) for _ in range(2)]
        words = [each if isinstance(each, str) else f"the {'same' if each.server == old.server else 'other'} server" for each in found]
        return f"{words[0]} twice" if words[0] == words[1] else " and ".join(words)

    def quiesced(self, service: BalancedService) -> str:
        old = service.connect(self.client)
        self.director.restore(f"-e {self.director.real(service.port, old.server, words='-w 0')}")
        return f"established {'works' if old.works() else 'is silent'}, new ones go to {self.new(service, old)}"

    def quiesced_expiring(self, service: BalancedService) -> str:
        with self.sysctl("expire_quiescent_template"):
            return self.quiesced(service)

    def remove(self, service: BalancedService) -> BalancedConnection:
        """A connection whose server is removed from the service."""
        old = service.connect(self.client)
        self.director.restore(f"-d {self.director.which(service.port, old.server)}")
        return old

    def gone(self, service: BalancedService) -> str:
        old = self.remove(service)
        old.conn.send(b"data")
        new = self.new(service, old)
        heard = select.select([old.peer, old.conn], [], [], 0)[0]
        return f"established {'works' if heard else 'is silent'}, new ones go to {new}"

    def back(self, service: BalancedService) -> str:
        old = self.remove(service)
        old.conn.send(b"lost at first ")
        self.director.restore(f"-a {self.director.real(service.port, old.server)}")
        arrived = bool(select.select([old.peer], [], [], 5)[0]) and old.peer.recv(100) == b"lost at first " and old.works()
        return f"established {'works' if arrived else 'is silent'}"

    def expired(self, service: BalancedService) -> str:
        with self.sysctl("expire_nodest_conn"):
            old = self.remove(service)
            old.conn.send(b"data")
            old.conn.settimeout(5)
            try:
                old.conn.recv(1)
            except OSError as error:
                return f"established gets {errno_name(error.errno) or 'nothing'}"
            return "established gets an end"

    def overloaded(self, service: BalancedService) -> str:
        self.director.restore(*(f"-e {self.director.real(service.port, server, words='-x 1')}" for server in range(2)))
        found = [service.connect(self.client) for _ in range(3)]
        words = [each if isinstance(each, str) else str(each.server) for each in found]
        return "both servers, then " + words[2] if {*words[:2]} == {"0", "1"} else ", ".join(
            each if not each.isdigit() else "the same server" if each == words[0] else "the other server" for each in words)

    def none_left(self, service: BalancedService) -> str:
        self.director.restore(*(f"-e {self.director.real(service.port, server, words='-w 0')}" for server in range(2)))
        found = service.connect(self.client)
        return found if isinstance(found, str) else "connected"

    def mtu(self, service: BalancedService) -> str:
        made = service.connect(self.client)
        deliver(made.conn, made.peer, 5000)
        return f"delivered, path MTU {tcp_info(made.conn).pmtu}"

    def mtu_of_large_packets(self, service: BalancedService) -> str:
        """All that is sent at once is one packet for the director."""
        offload.segment_in_software(self.client, on=False)
        made = service.connect(self.client)
        deliver(made.conn, made.peer, 20_000)
        offload.segment_in_software(self.client)
        return f"delivered, path MTU {tcp_info(made.conn).pmtu}"

    def echoing(self, port: int) -> list[socket.socket]:
        """A datagram socket of each server."""
        made = [server.socket(self.director.family, socket.SOCK_DGRAM) for server in self.director.servers]
        for each, server in zip(made, self.director.servers):
            # The answer must come from the address that was asked.
            each.bind((server.address(self.director.family) if self.director.method.name == "NAT" else self.director.virtual, port))
        return made

    def ask(self, port: int) -> socket.socket:
        udp = self.client.socket(self.director.family, socket.SOCK_DGRAM)
        udp.settimeout(5)
        udp.connect((self.director.virtual, port))
        return udp

    def large(self, port: int) -> str:
        servers, udp = self.echoing(port), self.ask(port)
        with self.client.capture() as packets:
            udp.send(BIG)
        told = [pmtu.announced(error) for error in pmtu.too_big(packets.received())]
        if told:
            so_error(udp)                   # the message is also the socket's error
            udp.send(BIG)
        found = select.select(servers, [], [], 5)[0]
        for server in found:
            data, sender = server.recvfrom(10_000)
            server.sendto(data, sender)
        answered = bool(found) and bool(select.select([udp], [], [], 5)[0]) and udp.recv(10_000) == BIG
        return (f"too big for {told[0]}, then " if told else "") + ("echoed" if answered else "lost")

    def inside(self, port: int) -> str:
        udp = self.ask(port)
        udp.send(b"to a closed port")
        try:
            return udp.recv(100).decode()
        except OSError as error:
            return errno_name(error.errno) or "nothing"

    def outside(self, service: BalancedService) -> str:
        made = service.connect(self.client)
        with self.client.capture("tcp") as packets:
            deliver(made.peer, made.conn, 1000)
        quoted = icmp.quote_next(packets.received().which("with data", lambda packet: packet.length)[0])
        # The segment must be in flight.
        icmp.send_too_big(self.client, self.host, SAID_BY_SERVER, quoted, confirm=False)
        made.peer.sendall(b"data")
        assert made.conn.recv(10) == b"data"
        path = pmtu.path(self.director.servers[made.server], self.client.address(self.director.family)).mtu
        return f"server learns {path}"

    def no_route(self, port: int) -> str:
        address = self.director.servers[0].address(self.director.outer)
        self.director.restore(f"-d {self.director.which(port, 1, '-u')}")
        udp = self.ask(port)
        udp.setsockopt(*RECVERR[self.director.family], 1)
        self.host.run(["ip", "route", "add", "unreachable", address])
        try:
            udp.send(b"data")
            udp.settimeout(2)
            return udp.recv(100).decode()
        except OSError as error:
            return errno_name(error.errno) or "nothing"
        finally:
            self.host.run(["ip", "route", "del", "unreachable", address])

    def local(self, service: BalancedService) -> str:
        made = service.connect(self.host, source=self.host.address(self.director.family))
        return made if isinstance(made, str) else "works" if made.works() else "connected, but silent"


@pytest.mark.table(EVENTS)
@pytest.mark.parametrize("row", EVENTS.rows)
def test_clients_see_what_the_director_was_told(net, row, table):
    """Servers that leave or are full, packets that do not fit, errors from both sides: of each service its clients see the same,
    whatever the forwarding method."""
    for host in net.hosts.values():
        host.pin(NO_ICMP_LIMITS)
    offload.segment_in_software(net["client"])
    director = Director(net, *rows()[row])
    clients = Clients(director, EVENTS.columns(row))
    director.start([port for column, port in clients.ports.items() if column not in DATAGRAMS],
                   [clients.ports[column] for column in DATAGRAMS])
    for column in table:
        table.saw(clients.show(column))
