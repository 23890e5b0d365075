"""What crosses a path with a smaller MTU: UDP with segmentation offload (GSO), packets that a router forwards, and ESP.

Data arrives unchanged, or its sender gets the error that names the MTU.
"""

import socket
import struct
from contextlib import contextmanager
from itertools import groupby

import pytest

from fixtures.table import Measured, Must, OneOf, Table
from fixtures.topologies import ROUTED
from netns import missing_feature
from netns.attempt import errno_of
from netns.netlink import xfrm
from netns.packets import errqueue, icmp, pmtu
from netns.traffic.closing import fence

pytestmark = pytest.mark.topology(ROUTED)

V4, V6 = socket.AF_INET, socket.AF_INET6
FAMILIES = {"IPv4": V4, "IPv6": V6}
NARROW, LINK = 1300, 1500
HEADERS = {V4: 28, V6: 48}                  # IP and UDP
LEVEL = {V4: socket.IPPROTO_IP, V6: socket.IPPROTO_IPV6}
MTU_DISCOVER = {V4: 10, V6: 23}
MODES = ("DONT", "WANT", "DO", "PROBE", "INTERFACE", "OMIT")        # include/uapi/linux/in.h, in6.h
UDP_SEGMENT = 103                           # include/uapi/linux/udp.h


class Datagrams:
    """A client's UDP socket and the server's, for datagrams whose bytes tell where they belong."""

    def __init__(self, net, family):
        self.client, self.server, self.router = net.nodes("client", "server", "router")
        self.family = family
        self.ours, self.theirs = (host.socket(family, socket.SOCK_DGRAM) for host in (self.client, self.server))
        self.theirs.bind((self.server.address(family), 0))
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.ours.bind((self.client.address(family), 0))
        self.ours.connect(self.theirs.getsockname()[:2])
        self.told = self.client.socket(family, socket.SOCK_DGRAM)       # the errors that another socket gets do not disturb
        self.told.bind((self.client.address(family), 0))
        self.count = 0

    def mode(self, name):
        self.ours.setsockopt(LEVEL[self.family], MTU_DISCOVER[self.family], MODES.index(name))

    def data(self, size):
        """The payload of a packet of this size, unlike that of the one before."""
        self.count += 1
        return (struct.pack("!I", self.count) * (size // 4 + 1))[:size - HEADERS[self.family]]

    def arrived(self, data):
        """The sizes of the packets in which the server got this data, after all that was sent has arrived."""
        fence(self.client, self.server, self.server.address(self.family))
        got = []
        while b"".join(got) != data:
            piece = errno_of(self.theirs.recv, 1 << 17, socket.MSG_DONTWAIT)
            if piece == "EAGAIN":
                return None
            got.append(piece)
        return [len(each) + HEADERS[self.family] for each in got]

    def learn(self, mtu):
        quoted = icmp.udp_quote(*self.told.getsockname()[:2], self.server.address(self.family), 9)
        icmp.send_too_big(self.router, self.client, mtu, quoted)


# Segmentation offload

SEGMENTS = {"path MTU -1": NARROW - 1, "path MTU": NARROW, "path MTU +1": NARROW + 1, "link MTU": LINK, "link MTU +1": LINK + 1}
# The bytes of payload, by those of a segment.
AMOUNTS = {"less than a segment": lambda size: size // 2, "one byte less": lambda size: size - 1, "one segment": lambda size: size,
           "one byte more": lambda size: size + 1, "3.5 segments": lambda size: 3 * size + size // 2}
COUNTS = {f"{count} segments of 500 bytes": count for count in (64, 65, 128, 129)}
UDP_7 = "udp(7), UDP_SEGMENT"


def cut(size, amount, headers):
    whole, rest = divmod(amount, size - headers)
    return counted([size] * whole + ([rest + headers] if rest else []))


def counted(sizes):
    """The sizes in order, alike ones together."""
    return "+".join(f"{len(list(alike))} x {size}" for size, alike in groupby(sizes))


def offloaded(family, mode, size, amount):
    """udp(7): the datagrams meet the same MTU rules as without the option, except that none is fragmented."""
    mtu = NARROW if mode in ("DONT", "WANT", "DO") else LINK
    headers = HEADERS[family]
    if max(min(size, amount + headers), 0) <= mtu:
        return cut(size, amount, headers)
    return OneOf(("EMSGSIZE", "EINVAL"), "udp(7) does not name the errno")


def offload_cells(family, mode):
    cells = {f"{name}, {amount}": offloaded(family, mode, size, bytes_of(size - HEADERS[family]))
             for name, size in SEGMENTS.items() for amount, bytes_of in AMOUNTS.items()}
    for name, count in COUNTS.items():
        whole = cut(500, count * (500 - HEADERS[family]), HEADERS[family])
        cells[name] = Must(whole, UDP_7) if count <= 64 else OneOf((whole, "EINVAL"), "udp(7): at most 64; udp.h: 128 since 6.9") \
            if count <= 128 else Must("EINVAL", "include/linux/udp.h, UDP_MAX_SEGMENTS")
    return cells


GSO = Table("pmtu.gso", "family, discovery mode", "segments of this size, amount of data", UDP_7,
            {f"{name}, {mode}": offload_cells(family, mode) for name, family in FAMILIES.items() for mode in MODES})


@pytest.mark.table(GSO)
@pytest.mark.parametrize("row", GSO.rows)
def test_datagrams_of_one_offloaded_send_meet_the_rules_of_single_ones(net, row, table):
    """With a path MTU of 1300: the datagrams that arrive, or the errno."""
    name, mode = row.split(", ")
    family = FAMILIES[name]
    datagrams = Datagrams(net, family)
    datagrams.learn(NARROW)
    datagrams.mode(mode)
    for column in table:
        if column in COUNTS:
            size, amount = 500, COUNTS[column] * (500 - HEADERS[family])
        else:
            segment, _, words = column.partition(", ")
            size, amount = SEGMENTS[segment], AMOUNTS[words](SEGMENTS[segment] - HEADERS[family])
        try:
            datagrams.ours.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size - HEADERS[family])
        except OSError as error:
            raise missing_feature("the kernel has no UDP_SEGMENT", error) from error
        data = datagrams.data(amount + HEADERS[family])
        result = errno_of(datagrams.ours.send, data)
        sizes = datagrams.arrived(data if result == len(data) else b"")
        table.saw(result if isinstance(result, str) else counted(sizes) if sizes else "lost")


# Forwarding

PATHS = ("link", "route", "locked route", "exception", "exception, ip_forward_use_pmtu", "locked exception")
SIZES = {f"{size} bytes": size for size in (1291, 1292, 1293, NARROW - 1, NARROW, NARROW + 1, LINK - 1, LINK)}
SEND = {"with DF": "PROBE", "without DF": "INTERFACE"}


def fragments(size, mtu):
    room = (mtu - 20) // 8 * 8
    return "+".join(str(20 + min(room, size - 20 - at)) for at in range(0, size - 20, room))


def forwarded(family, path, df, size):
    """RFC 1812, 5.2.6, and RFC 8200, 5: too large is what the link or the route does not take. An exception, which anyone could
    forge, does not count unless ip_forward_use_pmtu is set (ip-sysctl.rst)."""
    narrow = "exception" not in path or "use_pmtu" in path and family == V4
    if not narrow or size <= NARROW:
        return str(size)
    return f"nothing, told {NARROW}" if family == V6 or df else fragments(size, NARROW)


FORWARDING = Table("pmtu.forwarding", "family, what is narrow behind the router", "packet", "RFC 1812, 5.2.6; RFC 8200, 5; ip-sysctl.rst", {
    f"{name}, {path}": {
        f"{size}{f', {df}' if family == V4 else ''}": Measured("ip-sysctl.rst does not speak of locked exceptions")
        if path == "locked exception" else Measured("ip_forward_use_pmtu is IPv4's") if (path, family) == ("exception", V6)
        else forwarded(family, path, df == "with DF", number)
        for size, number in SIZES.items() for df in (SEND if family == V4 else ["with DF"])}
    for name, family in FAMILIES.items() for path in (PATHS if family == V4 else PATHS[:4])})


def narrow(net, family, path):
    """Make the way from the router to the server narrow."""
    router, server = net.nodes("router", "server")
    if path == "link":
        for host, other in ((router, "server"), (server, "router")):
            host.run(["ip", "link", "set", "dev", f"to-{other}", "mtu", str(NARROW)])
    elif "route" in path:
        lock = ["lock"] if "locked" in path else []
        router.run(["ip", "route", "add", server.address(family), "dev", "to-server", "mtu", *lock, str(NARROW)])
    else:
        router.pin({"net.ipv4.ip_forward_use_pmtu": int("use_pmtu" in path)})
        udp = router.socket(family, socket.SOCK_DGRAM)
        udp.bind((router.address(family, "server"), 0))
        quoted = icmp.udp_quote(*udp.getsockname()[:2], server.address(family), 9)
        icmp.send_too_big(server, router, 500 if "locked" in path else NARROW, quoted)


@pytest.mark.table(FORWARDING)
@pytest.mark.parametrize("row", FORWARDING.rows)
def test_router_forwards_fragments_or_reports_what_is_too_large(net, row, table):
    """The packets behind the router, or the MTU in its error; what is forwarded arrives unchanged."""
    name, _, path = row.partition(", ")
    family = FAMILIES[name]
    narrow(net, family, path)
    datagrams = Datagrams(net, family)
    for column in table:
        size, _, df = column.partition(", ")
        datagrams.mode(SEND[df or "with DF"])
        data = datagrams.data(SIZES[size])
        datagrams.ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        with datagrams.router.capture() as packets:
            datagrams.ours.send(data)
            arrived = datagrams.arrived(data)
        out = [packet.frame.length - 14 for packet in packets.sent() if packet.interface == "to-server" and packet.protocol == "udp"]
        assert out.pop() == HEADERS[family] + 1, "the last one is that of fence()"
        told = [pmtu.announced(error) for error in pmtu.too_big(packets.sent())]
        table.saw(("+".join(map(str, out)) or "nothing") + "".join(f", told {mtu}" for mtu in told)
                  + (", lost" if out and not arrived else ""))


# ESP

# ESP with AES-GCM: 8 bytes of header, 8 of IV, 16 of ICV, and a trailer of 2, padded to 4 (RFC 4303, RFC 4106).
SENDERS = ("DONT", "WANT", "DO", "PROBE")


def room(family, mode, mtu):
    """Bytes of the largest packet before ESP."""
    ip = HEADERS[family] - 8
    inside = (mtu - ip - 32) // 4 * 4 - 2
    return inside + (ip if mode == "transport" else 0)


def protected(family, mode, sender, offset, mtu):
    """RFC 4301, 8: the path MTU less what ESP adds is that of the sender. RFC 4303, 3.3.4: what exceeds it is fragmented before ESP or
    after it."""
    if offset <= 0:
        return "whole, arrived"
    if sender == "DO":
        return f"EMSGSIZE, told {room(family, mode, mtu)}"
    if sender == "PROBE":
        return Measured("ip(7) does not say what the path MTU is that PROBE ignores")
    return "fragments, arrived"


ESP = Table("pmtu.esp", "family, mode, discovery mode", "path MTU, size against what ESP leaves of it", "RFC 4301, 8; RFC 4303, 3.3.4", {
    f"{name}, {mode}, {sender}": {f"{mtu}, {offset:+}": protected(family, mode, sender, offset, mtu)
                                  for mtu in (LINK, NARROW) for offset in (-4, -3, -2, -1, 0, 1, 2, 3, 4, 100)}
    for name, family in FAMILIES.items() for mode in ("transport", "tunnel") for sender in SENDERS})


@contextmanager
def esp(client, server, family, mode):
    """UDP between the hosts is in ESP, both ways."""
    ends = client.address(family), server.address(family)
    for host, (near, far), spis in ((client, ends, (1001, 1002)), (server, ends[::-1], (1002, 1001))):
        here, there = (xfrm.Selector(*pair, socket.IPPROTO_UDP) for pair in ((near, far), (far, near)))
        xfrm.add(host, xfrm.SA(near, far, spi=spis[0], mode=mode), xfrm.SA(far, near, spi=spis[1], mode=mode),
                 xfrm.Policy(here, xfrm.Template(near, far, mode=mode)),
                 xfrm.Policy(there, xfrm.Template(far, near, mode=mode), direction="in"))
    yield


@pytest.mark.table(ESP)
@pytest.mark.parametrize("row", ESP.rows)
def test_sender_of_esp_leaves_room_for_it(net, row, table):
    """Whether a datagram is one ESP packet or more, and none larger than the path MTU; an ICMP error about ESP lowers it."""
    name, mode, sender = row.split(", ")
    family = FAMILIES[name]
    client, server, router = net.nodes("client", "server", "router")
    datagrams = Datagrams(net, family)
    errqueue.receive_errors(datagrams.ours)
    datagrams.mode(sender)
    with esp(client, server, family, mode):
        for column in table:
            mtu, offset = map(int, column.split(", "))
            data = datagrams.data(room(family, mode, mtu) + offset)
            with client.capture("esp") as packets:
                result = errno_of(datagrams.ours.send, data)
            sent = packets.sent()
            if mtu == LINK and offset == -4:
                whole = sent.only()
            elif mtu == LINK and offset == 100:
                icmp.send_too_big(router, client, NARROW, icmp.quote(whole))
            if isinstance(result, str):
                queued = errqueue.pending(datagrams.ours)
                table.saw(f"{result}, told {queued.info}" if queued else result)
                continue
            large = [packet.frame.length - 14 for packet in sent if packet.frame.length - 14 > mtu]
            table.saw(("whole" if len(sent) == 1 else "fragments" if sent else "nothing")
                      + (", arrived" if datagrams.arrived(data) else ", lost") + (f", {large} bytes" if large else ""))
