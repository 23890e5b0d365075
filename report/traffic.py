"""What the hosts of a test have sent and counted, and what the kernel has logged, in numbers that can be compared: the user property "traffic".

Everything that is random is left out: ports, sequence numbers' starts, identifiers, what neighbours and multicast groups
make hosts say at times of their own.
"""
import base64
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

FRAME = struct.Struct("<QIH")               # as in netns/footprint.py: nanoseconds, length on the wire, bytes kept
_IP4, _IP6 = b"\x08\x00", b"\x86\xdd"
_TCP, _UDP, _ICMP, _ICMP6, _ESP = 6, 17, 1, 58, 50
_NAMES = {_UDP: "udp", _ESP: "esp"}
_INNER = {4: _IP4, 41: _IP6}
_EXTENSIONS = (0, 43, 60)                   # of IPv6: hop-by-hop options, routing, destination options
# Multicast listener reports, neighbour and router discovery.
_HOUSEKEEPING = {130, 131, 132, 133, 134, 135, 136, 137, 143}
# Counters that these move.
_MOVED = re.compile(r"Ip6\.(In|Out)(Receives|Delivers|Requests|Transmits|Octets|Mcast\w+|NoECTPkts|NoRoutes)|Icmp6\.(In|Out)(Msgs|Errors)|Ip6\.\w*Bcast\w*|"
                    r"Icmp6\.(In|Out)(Group\w+|Router\w+|Neighbor\w+|MLDv2Reports|Type1[34]\d)|IpExt\.\w*Mcast\w*")
_NUMBER = re.compile(r"\b(0x)?[0-9a-f]*[0-9][0-9a-f]*\b")       # an id, a time, an address
SECONDS = " at"                             # the end of a name whose number is a time


def numbers(hosts: Mapping[str, dict] = MappingProxyType({}), log: Sequence[str] = ()) -> dict[str, float]:
    """By name: how many packets of each kind a host sent and, in seconds from the first packet of all, when the last one; its counters,
    and how many lines of each kind the kernel has logged."""
    sent = {role: list(_frames(each["frames"])) for role, each in hosts.items()}
    began = min((when for frames in sent.values() for when, _length, _data in frames), default=0)
    found: dict[str, float] = {}
    for role, frames in sent.items():
        flows: dict[bytes, int] = {}
        for when, length, data in frames:
            if kind := _kind(data[12:14], data[14:], length - 14, flows):
                name = f"{role} sends {kind}"
                found[name] = found.get(name, 0) + 1
                found[name + SECONDS] = round((when - began) / 1e9, 6)
        found |= {f"{role} counts {name}": value for name, value in hosts[role]["counters"].items() if not _MOVED.fullmatch(name)}
    for line in log:
        name = f"the kernel logs: {_NUMBER.sub('#', line)}"
        found[name] = found.get(name, 0) + 1
    return found


def differences(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, str]:
    """By name, what is not the same: a count, or a time by more than the kernel's timers are rounded."""
    found = {}
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, 0), after.get(name, 0)
        # A timer of t may be 1/8 t late (clock.align()), and one that waits for it as well.
        tolerance = 0.05 + 0.15 * old if name.endswith(SECONDS) else 0
        if abs(new - old) > tolerance:
            found[name] = f"{name}: {old:g} -> {new:g}"
    return found


def _frames(packed: str) -> Iterator[tuple[int, int, bytes]]:
    data, at = zlib.decompress(base64.b64decode(packed)), 0
    while at < len(data):
        when, length, kept = FRAME.unpack_from(data, at)
        at += FRAME.size
        yield when, length, data[at:at + kept]
        at += kept


def _kind(ethertype: bytes, data: bytes, length: int, flows: dict[bytes, int]) -> str:
    """What a packet is, in words that are the same each time; nothing for what comes at times of its own."""
    if ethertype == _IP4:
        header, protocol = 4 * (data[0] & 15), data[9]
        fragment = int.from_bytes(data[6:8], "big")
        words = f"ipv4 ttl {data[8]} tos {data[1]:#x}{' DF' if fragment & 0x4000 else ''}"
        if fragment & 0x3FFF:
            return f"{words} fragment {8 * (fragment & 0x1FFF)}, {length} bytes"
        addresses = data[12:20]
    elif ethertype == _IP6:
        header, protocol, addresses = 40, data[6], data[8:40]
        words = f"ipv6 ttl {data[7]} tos {int.from_bytes(data[:2], 'big') >> 4 & 0xFF:#x}"
        while protocol in _EXTENSIONS and len(data) > header + 1:
            protocol, header = data[header], header + 8 * (data[header + 1] + 1)
    else:
        return ""
    rest, size = data[header:], length - header
    if protocol == _TCP and len(rest) >= 20:
        return f"{words} {_segment(rest, size, addresses, flows)}"
    if protocol in (_ICMP, _ICMP6) and len(rest) >= 8:
        kind, code = rest[0], rest[1]
        if protocol == _ICMP6 and kind in _HOUSEKEEPING:
            return ""
        mtu = f" mtu {int.from_bytes(rest[4:8], 'big')}" if (protocol, kind, code) in ((_ICMP, 3, 4), (_ICMP6, 2, 0)) else ""
        return f"{words} icmp {kind}/{code}{mtu}, {size} bytes"
    if protocol in _INNER:
        return f"{words} tunnel: {_kind(_INNER[protocol], rest, size, flows)}"
    return f"{words} {_NAMES.get(protocol, f'protocol {protocol}')}, {size} bytes"


def _segment(data: bytes, size: int, addresses: bytes, flows: dict[bytes, int]) -> str:
    seq, _ack, offset, bits, window = struct.unpack_from("!IIBBH", data, 4)
    flags = "".join(letter for bit, letter in enumerate("FSRPAUEC") if bits >> bit & 1)
    header = 4 * (offset >> 4)
    flow = addresses + data[:4]
    if "S" in flags:
        flows[flow] = seq
    relative = seq - flows.setdefault(flow, seq) & 0xFFFFFFFF
    # A bulk transfer's segments are of one kind.
    place = "" if size > header else f" seq {relative}"
    return f"tcp {flags}{place} len {size - header}{' window 0' if not window and 'R' not in flags else ''}{_options(data[20:header])}"


def _options(data: bytes) -> str:
    words, at = "", 0
    while at + 1 < len(data) and data[at]:
        if data[at] == 1:
            at += 1
            continue
        words += f" mss {int.from_bytes(data[at + 2:at + 4], 'big')}" if data[at] == 2 else f" option {data[at]}"
        at += max(data[at + 1], 2)
    return words
