"""Dumps of connections that the kernel filters: CTA_FILTER, which conntrack(8) 1.4.7 does not send.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h; net/netfilter/nf_internals.h.
"""

import socket
import struct
from collections.abc import Mapping

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST

from netns.hosts.host import Host
from netns.netlink.message import attribute, attributes, dumped, message, nest

_NETLINK_NETFILTER, _CT_GET, _NFGENMSG = 12, 0x101, 4
SIDES = {"original": 1, "reply": 2}         # CTA_TUPLE_ORIG and CTA_FILTER_ORIG_FLAGS; CTA_TUPLE_REPLY and CTA_FILTER_REPLY_FLAGS
_FILTER, _IP, _PROTO, _NUMBER = 25, 1, 2, 1
_ADDRESSES = {socket.AF_INET: {"source": 1, "destination": 2}, socket.AF_INET6: {"source": 3, "destination": 4}}
_PORTS = {"source port": 2, "destination port": 3}
# CTA_FILTER_F_*
_FLAGS = {"source": 1 << 0, "destination": 1 << 1, "protocol": 1 << 3, "source port": 1 << 4, "destination port": 1 << 5}


def filtered(host: Host, family: socket.AddressFamily, side: str, fields: Mapping[str, str | int], protocol: int = 17) -> list[int]:
    """The source ports of the host's connections whose tuple of the `side`, "original" or "reply", has these fields: "source" and
    "destination" (addresses), "protocol", "source port" and "destination port" (numbers), which go with the `protocol`. In ascending
    order. Raises OSError with the kernel's errno where it refuses."""
    addresses = [attribute(_ADDRESSES[family][name], socket.inet_pton(family, str(fields[name])))
                 for name in _ADDRESSES[family] if name in fields]
    ports = [attribute(number, struct.pack("!H", fields[name])) for name, number in _PORTS.items() if name in fields]
    protocols = [attribute(_NUMBER, bytes([int(fields.get("protocol", protocol))]))] if ports or "protocol" in fields else []
    match = ([nest(_IP, *addresses)] if addresses else []) + ([nest(_PROTO, *protocols, *ports)] if protocols else [])
    flags = sum(_FLAGS[name] for name in {*fields, *(["protocol"] if ports else [])})
    asked = nest(SIDES[side], *match) + nest(_FILTER, attribute(SIDES[side], struct.pack("=I", flags)))
    with host.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.settimeout(10)
        netlink.send(message(_CT_GET, NLM_F_REQUEST | NLM_F_DUMP, struct.pack("=BBH", family, 0, 0) + asked))
        return sorted(_source_port(body) for body in dumped(netlink))


def _source_port(body: bytes) -> int:
    original = dict(attributes(body, _NFGENMSG))[SIDES["original"]]
    protocol = dict(attributes(dict(attributes(original))[_PROTO]))
    return int.from_bytes(protocol[_PORTS["source port"]], "big")
