"""What the kernel lists of its connections when it is asked for some only: CTA_FILTER, which conntrack(8) 1.4.7 does not send.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, ctnetlink_filter_match_tuple().
"""

import socket
import struct

import pytest
from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST

from fixtures.topologies import LAN
from netns.netlink import conntrack
from netns.netlink.message import attribute, attributes, dumped, message, nest

pytestmark = pytest.mark.topology(LAN)

FAMILY = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6"}
OTHER = {socket.AF_INET: ("192.0.2.11", "192.0.2.12", 24), socket.AF_INET6: ("2001:db8:1::11", "2001:db8:1::12", 64)}
FLOWS = {1001: "matching", 1002: "earlier", 1003: "later"}                  # by source port
NETLINK_NETFILTER, CT_GET, NFGENMSG = 12, 0x101, 4
TUPLES = {"original": 1, "reply": 2}        # CTA_TUPLE_ORIG and CTA_FILTER_ORIG_FLAGS; CTA_TUPLE_REPLY and CTA_FILTER_REPLY_FLAGS
CTA_FILTER, CTA_TUPLE_IP, CTA_TUPLE_PROTO = 25, 1, 2
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
ADDRESSES = {socket.AF_INET: {"source": 1, "destination": 2}, socket.AF_INET6: {"source": 3, "destination": 4}}
# Bits of the flags: CTA_FILTER_F_*, net/netfilter/nf_internals.h.
SOURCE, DESTINATION, PROTOCOL, SOURCE_PORT, DESTINATION_PORT = 1 << 0, 1 << 1, 1 << 3, 1 << 4, 1 << 5


def flow(client, server, source, destination):
    """One datagram that arrived."""
    family = socket.AF_INET6 if ":" in source[0] else socket.AF_INET
    with server.socket(family, socket.SOCK_DGRAM) as inbox, client.socket(family, socket.SOCK_DGRAM) as outbox:
        inbox.bind(destination)
        inbox.settimeout(10)
        outbox.bind(source)
        outbox.sendto(b"x", destination)
        inbox.recv(1)


def address(family, kind, text):
    return nest(CTA_TUPLE_IP, attribute(ADDRESSES[family][kind], socket.inet_pton(family, text)))


def port(kind, number):
    return nest(CTA_TUPLE_PROTO, attribute(CTA_PROTO_NUM, bytes([socket.IPPROTO_UDP])), attribute(kind, struct.pack("!H", number)))


def filtered(host, family, side, flags, match):
    """The host's connections whose tuple of that side has what the attribute `match` says, as FLOWS calls them."""
    asked = nest(TUPLES[side], match) + nest(CTA_FILTER, attribute(TUPLES[side], struct.pack("=I", flags)))
    with host.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.settimeout(10)
        netlink.send(message(CT_GET, NLM_F_REQUEST | NLM_F_DUMP, struct.pack("=BBH", family, 0, 0) + asked))
        return sorted(FLOWS[source_port(body)] for body in dumped(netlink))


def source_port(body):
    original = dict(attributes(body, NFGENMSG))[TUPLES["original"]]
    protocol = dict(attributes(dict(attributes(original))[CTA_TUPLE_PROTO]))
    return int.from_bytes(protocol[CTA_PROTO_SRC_PORT], "big")


@pytest.mark.parametrize("side, field", [("original", "source"), ("original", "destination"), ("reply", "source"), ("reply", "destination"),
                                         ("original", "source port"), ("original", "destination port")])
def test_filtered_dump_lists_only_matching_connections(net, family, side, field):
    """By an address or a port of either direction. Kernels without "netfilter: ctnetlink: fix inverted IPv6 address
    match in dump filter" list all others by IPv6 addresses."""
    client, server = net.nodes("client", "server")
    here, there = client.address(family), server.address(family)
    other_here, other_there, prefix = OTHER[family]
    client.add_address(f"{other_here}/{prefix}", "server")
    server.add_address(f"{other_there}/{prefix}", "client")
    source, destination = (here, there) if side == "original" else (there, here)
    flags, match = {
        "source": (SOURCE, address(family, "source", source)),
        "destination": (DESTINATION, address(family, "destination", destination)),
        "source port": (PROTOCOL | SOURCE_PORT, port(CTA_PROTO_SRC_PORT, 1001)),
        "destination port": (PROTOCOL | DESTINATION_PORT, port(CTA_PROTO_DST_PORT, 2001)),
    }[field]

    with conntrack.tracking(server) as tracker:
        flow(client, server, (other_here, 1002), (other_there, 2002))
        flow(client, server, (here, 1001), (there, 2001))
        flow(client, server, (other_here, 1003), (other_there, 2003))

        assert len(tracker.listing("-f", FAMILY[family], "-p", "udp")) == 3
        listed = filtered(server, family, side, flags, match)

    assert listed == ["matching"]
