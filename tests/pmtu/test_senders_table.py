"""Every sender of datagrams in every discovery mode, with sizes around the path MTU and the link's: what is on the wire.

A host has learned a path MTU of 1300 over a link of 1500. What it sends arrives whole, or the call fails and nothing is sent.
"""

import socket
import struct

import pytest

from fixtures.table import OneOf, Table
from fixtures.topologies import ROUTED
from netns.attempt import errno_of
from netns.packets import errqueue, icmp, pmtu

pytestmark = pytest.mark.topology(ROUTED)

V4, V6 = socket.AF_INET, socket.AF_INET6
LEARNED, LINK = 1300, 1500
HEADER = {V4: 20, V6: 40}
FRAGMENT_HEADER = {V4: 0, V6: 8}
LARGEST = {V4: 65535, V6: 40 + 65535}       # RFC 791, 3.1; RFC 8200, 3
UPPER = 8                                   # bytes of the header of UDP, of an ICMP echo; a raw socket's packets begin with as many
EXPERIMENT = 253                            # RFC 3692
LEVEL = {V4: socket.IPPROTO_IP, V6: socket.IPPROTO_IPV6}
MTU_DISCOVER = {V4: 10, V6: 23}
MODES = ("DONT", "WANT", "DO", "PROBE", "INTERFACE", "OMIT")        # include/uapi/linux/in.h, in6.h
PING = {V4: (socket.IPPROTO_ICMP, 8), V6: (socket.IPPROTO_ICMPV6, 128)}


def filling(family, mtu, count):
    """The size of a packet that becomes `count` fragments, as full as they can be."""
    return HEADER[family] + count * ((mtu - HEADER[family] - FRAGMENT_HEADER[family]) // 8 * 8)


SIZES = {
    **{f"path MTU {offset:+}": lambda family, offset=offset: LEARNED + offset for offset in (-8, -1, 0, 1, 7, 8)},
    **{f"link MTU {offset:+}": lambda family, offset=offset: LINK + offset for offset in (-1, 0, 1)},
    **{f"{count} full fragments {offset:+}": lambda family, count=count, offset=offset: filling(family, LEARNED, count) + offset
       for count in (2, 3) for offset in (0, 1)},
    **{f"2 full fragments of the link {offset:+}": lambda family, offset=offset: filling(family, LINK, 2) + offset for offset in (0, 1)},
    **{f"largest {offset:+}": lambda family, offset=offset: LARGEST[family] + offset for offset in (0, 1)},
}


def shape(family, sizes, df):
    return "+".join(map(str, sizes)) + (" with DF" if df else "") + ", arrived"


def fragments(family, size, mtu):
    """The sizes of the fragments, each but the last as large as it can be: the procedure of RFC 791, 3.2; RFC 8200, 4.5."""
    left, room = size - HEADER[family], filling(family, mtu, 1) - HEADER[family]
    overhead = HEADER[family] + FRAGMENT_HEADER[family]
    return [overhead + min(room, left - at) for at in range(0, left, room)]


def outcome(family, mode, size):
    """ip(7), IP_MTU_DISCOVER: DO refuses what exceeds the path MTU, PROBE ignores the path MTU, both set DF; WANT sets DF and fragments
    what exceeds it; DONT never sets DF. include/uapi/linux/in.h: INTERFACE goes by the interface's MTU and never sets DF, OMIT too, but
    lets the packets be fragmented. ipv6(7) and in6.h say the same without DF."""
    mtu = LEARNED if mode in ("DONT", "WANT", "DO") else LINK
    if size > LARGEST[family]:
        return OneOf(("EMSGSIZE", f"EMSGSIZE, told {mtu}"), "no MTU is to blame; ip(7) does not say whether it is reported")
    if size <= mtu:
        return shape(family, [size], family == V4 and mode in ("WANT", "DO", "PROBE"))
    if mode in ("DO", "PROBE", "INTERFACE"):
        return f"EMSGSIZE, told {mtu}"
    return shape(family, fragments(family, size, mtu), df=False)


def cells(family):
    return {f"{sender}, {mode}": {name: outcome(family, mode, size(family)) for name, size in SIZES.items()}
            for sender in ("UDP", "UDP in two parts", "UDP, not connected", "raw", "ping") for mode in MODES}


SENDERS = {family: Table(f"pmtu.senders over {name}", "sender, discovery mode", "size of the packet",
                         "ip(7), IP_MTU_DISCOVER; include/uapi/linux/in.h; RFC 791, 3.2; RFC 8200, 4.5", cells(family))
           for family, name in ((V4, "IPv4"), (V6, "IPv6"))}


class SizedDatagrams:
    """A client's socket and the server's that receives. The client knows the path MTU."""

    def __init__(self, net, family, sender, mode):
        self.client, self.server = net.nodes("client", "server")
        self.family, self.sender = family, sender
        self.client.pin({"net.ipv4.ping_group_range": "0 0"})
        self.there = (self.server.address(family), 0)
        if sender == "ping":
            self.socket = self.client.socket(family, socket.SOCK_DGRAM, PING[family][0])
            self.inbox = self.socket
        else:
            kind = (socket.SOCK_RAW, EXPERIMENT) if sender == "raw" else (socket.SOCK_DGRAM,)
            self.socket, self.inbox = (host.socket(family, *kind) for host in (self.client, self.server))
            self.inbox.bind(self.there)
            self.there = self.inbox.getsockname()[:2]
        self.inbox.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.socket.setsockopt(LEVEL[family], MTU_DISCOVER[family], MODES.index(mode))
        errqueue.receive_errors(self.socket)
        if sender != "UDP, not connected":
            self.socket.connect(self.there)
        icmp.send_too_big(net["router"], self.client, LEARNED, icmp.udp_quote(
            self.client.address(family), learner(self.client, family), self.there[0], 9))

    def send(self, data):
        """Send this behind a header: the errno, or the number of bytes."""
        if self.sender == "raw":
            data = bytes(UPPER) + data      # there is no header
        elif self.sender == "ping":
            data = struct.pack("!BBHHH", PING[self.family][1], 0, 0, 0, 0) + data
        if self.sender == "UDP, not connected":
            return errno_of(self.socket.sendto, data, self.there)
        if self.sender == "UDP in two parts":
            first, data = data[:100], data[100:]
            self.socket.send(first, socket.MSG_MORE)
        return errno_of(self.socket.send, data)

    def saw(self, size):
        """What became of a packet of this size."""
        data = struct.pack("!I", size) * (size // 4 + 1)
        data = data[:size - HEADER[self.family] - UPPER]
        self.socket.settimeout(None)        # otherwise Python would wait for an error in the queue
        with self.client.capture() as packets:
            result = self.send(data)
            sent = [packet for packet in packets.sent() if packet.destination == self.there[0]]
        if isinstance(result, str):
            queued = errqueue.pending(self.socket)
            assert not sent, f"{result}, but {sent} was sent"
            return result + (f", told {queued.info}" if queued and queued.info else "")
        self.inbox.settimeout(5)
        got = self.inbox.recv(1 << 17)
        df = {bool(packet.frame.data[20] & 0x40) for packet in sent} if self.family == V4 else {False}
        assert len(df) == 1, f"DF is not alike in {sent}"
        text = "+".join(str(packet.frame.length - 14) for packet in sent) + (" with DF" if df == {True} else "")
        return text + (", arrived" if got.endswith(data) else f", {len(got)} bytes arrived")


def learner(client, family):
    """The port of a socket of the client that an ICMP error may be about."""
    udp = client.socket(family, socket.SOCK_DGRAM)
    udp.bind((client.address(family), 0))
    return udp.getsockname()[1]


def check(net, family, row, table):
    sender = SizedDatagrams(net, family, *row.rsplit(", ", 1))
    for column in table:
        table.saw(sender.saw(SIZES[column](family)))
    assert pmtu.path(sender.client, sender.there[0]).mtu == LEARNED


@pytest.mark.table(SENDERS[V4])
@pytest.mark.parametrize("row", SENDERS[V4].rows)
def test_ipv4_datagram_is_sized_as_its_discovery_mode_says(net, row, table):
    """Sizes, DF and delivery of each packet; the errno and the MTU in the error queue where it is refused."""
    check(net, V4, row, table)


@pytest.mark.table(SENDERS[V6])
@pytest.mark.parametrize("row", SENDERS[V6].rows)
def test_ipv6_datagram_is_sized_as_its_discovery_mode_says(net, row, table):
    """As over IPv4, without DF."""
    check(net, V6, row, table)
