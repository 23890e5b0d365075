"""What the kernel tells a key manager about an SA's progress: XFRM_MSG_GETAE, RFC 4303 (3.4.3) for ESN."""

import dataclasses
import os
import socket
import struct

import pytest
from pyroute2.netlink import NLM_F_REQUEST, NLMSG_ERROR

from fixtures.topologies import LAN
from netns.netlink import xfrm, xfrm_wire as wire
from netns.netlink.message import HEADER, attribute, attributes, message

pytestmark = pytest.mark.topology(LAN)

NETLINK_XFRM = 6
INTERFACE, LONGEST_WINDOW = 42, 128
# Attributes of SAs: the direction from 6.10 on, the CPU from 6.13 on; older kernels pass over them.
SA_DIR, SA_PCPU, INCOMING = 33, 35, 1
XFRMA_IF_ID, ATTRIBUTES_AT = 31, HEADER.size + 48
EVERYTHING = 0b1111                         # replay and lifetime, values and thresholds: enum xfrm_ae_ftype_t


def answer_to(netlink):
    """The next message. Raises OSError with the kernel's errno where it refuses."""
    answer = netlink.recv(1 << 16)
    if HEADER.unpack_from(answer)[1] == NLMSG_ERROR:
        (negative,) = struct.unpack_from("=i", answer, HEADER.size)
        raise OSError(-negative, os.strerror(-negative))
    return answer


@pytest.mark.virtual_clock("crashes an affected kernel: needs its own machine")
def test_getae_answers_in_full_for_every_replay_window_size(peers):
    """With any replay window that ESN allows, a mark and an interface: the answer has room for all of them. Kernels
    without "xfrm: account XFRMA_IF_ID in aevent size calculation" take too little, and crash."""
    sas = [dataclasses.replace(peers.sa(), spi=0x1000 + words, mark=(1, 0xFF), window=words, interface=INTERFACE)
           for words in range(1, LONGEST_WINDOW + 1)]
    told = []
    xfrm.add(peers.server, dataclasses.replace(peers.sa(), spi=0x1000))
    with peers.server.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM) as netlink:
        netlink.settimeout(10)
        for sa in sas:
            body = wire.sa(sa) + attribute(SA_DIR, bytes([INCOMING])) + attribute(SA_PCPU, bytes(4))
            netlink.send(message(wire.NEWSA, NLM_F_REQUEST, body))
            ask = wire.sa_id(dataclasses.replace(sa, mark=None)) + bytes(16) + struct.pack("=II", EVERYTHING, 0)
            mark = attribute(21, struct.pack("=II", *sa.mark))
            netlink.send(message(wire.GETAE, NLM_F_REQUEST, ask + mark))
            told.append(dict(attributes(answer_to(netlink), ATTRIBUTES_AT)))

    assert [struct.unpack("=I", each[XFRMA_IF_ID]) for each in told] == [(INTERFACE,)] * len(sas)
