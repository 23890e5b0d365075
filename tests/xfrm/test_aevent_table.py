"""What a key manager is told of an SA, XFRM_MSG_GETAE: each size of the replay window x what else the SA has.

Source: Documentation/networking/xfrm_sync.rst; include/uapi/linux/xfrm.h.
"""

import socket
import struct

import pytest
from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST

from fixtures.table import Table
from fixtures.topologies import LAN
from netns.attempt import errno_name
from netns.netlink import xfrm_wire as wire
from netns.netlink.message import HEADER, attribute, attributes, message
from netns.netlink.xfrm import SA, Replay

pytestmark = [pytest.mark.topology(LAN), pytest.mark.virtual_clock("crashes an affected kernel: needs its own machine")]

NETLINK_XFRM, ERROR = 6, 2
# Attributes: the direction from 6.10 on, the CPU from 6.13 on; older kernels pass over them.
REPLAY, ESN, MARK, IF_ID, SA_DIR, SA_PCPU, INCOMING = 10, 23, 21, 31, 33, 35, 1
ATTRIBUTES_AT = HEADER.size + 48            # after struct xfrm_aevent_id
EVERYTHING = 0b1111                         # replay and lifetime, values and thresholds: enum xfrm_ae_ftype_t
MARKED, INTERFACE = (1, 0xFF), 42
LONGEST = 128                               # words of 32 bits: XFRMA_REPLAY_ESN_MAX is 4096 bits
WINDOWS = {"legacy window": Replay("legacy", 32), **{f"bitmap of {words} words": Replay("bitmap", 32 * words) for words in (1, 2, LONGEST)},
           **{f"ESN, {words} words": Replay("ESN", 32 * words) for words in range(1, LONGEST + 1)}}
# What the SA has, and what is asked to be in the answer.
HAS = {"nothing else": (), "a mark": ("mark",), "an if_id": ("if_id",), "a mark and an if_id": ("mark", "if_id"),
       "a mark, an if_id, a direction and a CPU": ("mark", "if_id", "direction", "CPU")}
TABLE = Table("xfrm.aevent", "SA has", "replay window", "xfrm_sync.rst, XFRM_MSG_GETAE", {
    row: {window: ", ".join(["answered", *(each for each in has if each in ("mark", "if_id"))]) for window in WINDOWS}
    for row, has in HAS.items()})


def request(netlink, kind, body, flags=0):
    """The answer. Raises OSError."""
    netlink.send(message(kind, NLM_F_REQUEST | flags, body))
    answer = netlink.recv(1 << 16)
    if HEADER.unpack_from(answer)[1] == ERROR:
        (negative,) = struct.unpack_from("=i", answer, HEADER.size)
        if negative:
            raise OSError(-negative, errno_name(-negative))
    return answer


def told(netlink, sa):
    """What the answer has of this SA."""
    ask = wire.sa_id(SA(sa.source, sa.destination, sa.spi)) + bytes(16) + struct.pack("=II", EVERYTHING, 0)
    try:
        answer = request(netlink, wire.GETAE, ask + (attribute(MARK, struct.pack("=II", *sa.mark)) if sa.mark else b""))
    except OSError as error:
        return error.strerror
    found = dict(attributes(answer, ATTRIBUTES_AT))
    window = found.get(REPLAY if sa.replay.kind == "legacy" else ESN)
    words = ["answered"] if window else ["answered without the window"]
    words += ["mark"] if MARK in found else []
    words += ["if_id"] if found.get(IF_ID) == struct.pack("=I", INTERFACE) else []
    return ", ".join(words)


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_key_manager_is_told_all_of_an_sa(net, family, row, table):
    """There is room for it in the answer, whatever the size of the window."""
    client, server = net.nodes("client", "server")
    here, there = client.address(family), server.address(family)
    has = HAS[row]
    with server.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM) as netlink:
        netlink.settimeout(10)
        for number, column in enumerate(table, 1):
            sa = SA(here, there, 0x1000 + number, mark=MARKED if "mark" in has else None, interface=INTERFACE if "if_id" in has else 0,
                    replay=WINDOWS[column])
            extra = attribute(SA_DIR, bytes([INCOMING])) if "direction" in has else b""
            extra += attribute(SA_PCPU, bytes(4)) if "CPU" in has else b""
            request(netlink, wire.NEWSA, wire.sa(sa) + extra, NLM_F_ACK)
            table.saw(told(netlink, sa))
