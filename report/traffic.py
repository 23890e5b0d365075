"""What the hosts of a test sent and counted, and what the kernel logged, as comparable numbers: the user property "traffic".

Random values are left out: ports, initial sequence numbers, identifiers, and the unsolicited packets of neighbour discovery and
multicast groups.
"""
import base64
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

FRAME = struct.Struct("<QIH?")              # as in netns/observe/footprint.py
_IP4, _IP6 = b"\x08\x00", b"\x86\xdd"
_TCP, _UDP, _ICMP, _ICMP6, _ESP = 6, 17, 1, 58, 50
_NAMES = {_UDP: "udp", _ESP: "esp"}
_CHECKSUM_AT = {_TCP: 16, _UDP: 6, _ICMP: 2, _ICMP6: 2}
# ICMP types that quote the packet they are about.
_ERRORS = {_ICMP: (3, 4, 5, 11, 12), _ICMP6: (1, 2, 3, 4)}
_PACKET_TOO_BIG = ((_ICMP, 3, 4), (_ICMP6, 2, 0))
_INNER = {4: _IP4, 41: _IP6}
_EXTENSIONS = (0, 43, 60)                   # of IPv6: hop-by-hop options, routing, destination options
_TIMESTAMPS = 8                             # the option of RFC 7323
# Multicast listener reports, neighbour and router discovery.
_HOUSEKEEPING = {130, 131, 132, 133, 134, 135, 136, 137, 143}
# Counters that these move, and counters of packets that find their socket locked, a race between softirq and process.
_MOVED = re.compile(r"Ip6\.(In|Out)(Receives|Delivers|Requests|Transmits|Octets|Mcast\w+|NoECTPkts|NoRoutes)|"
                    r"Icmp6\.(In|Out)Msgs|Icmp6\.OutErrors|Ip6\.\w*Bcast\w*|"
                    r"Icmp6\.(In|Out)(Group\w+|Router\w+|Neighbor\w+|MLDv2Reports|Type1[34]\d)|IpExt\.\w*Mcast\w*|"
                    r"TcpExt\.(DelayedACKLocked|TCPBacklogCoalesce|TCPRcvCoalesce)")
_NUMBER = re.compile(r"\b(0x)?[0-9a-f]*[0-9][0-9a-f]*\b")       # an id, a time, an address
MOST_FRAMES = 64 << 20                      # bytes of a host's frames; a test's have some tens of kB
SECONDS = " at"                             # suffix of a name whose number is a time
CELL = "cell "                              # prefix of a name that says what a table's cell showed


def numbers(hosts: Mapping[str, Mapping[str, Any]] = MappingProxyType({}), log: Sequence[str] = (),
            cells: Sequence[Mapping[str, Any]] = ()) -> dict[str, float]:
    """By name: packets of each kind that a host sent, and the time of the last one in seconds since the first packet of all; its
    counters; lines of each kind that the kernel logged; and what each cell of a table's row showed.  Frames are packed, or bytes as they
    were. Raises ValueError for too many."""
    sent = sorted((frame for role, each in hosts.items() for frame in _frames(role, each["frames"])), key=lambda frame: frame.when)
    found: dict[str, float] = {}
    flows: dict[bytes, int] = {}
    for frame in sent:
        if kind := _kind(frame.data[12:14], frame.data[14:], frame.length - 14, flows, frame.unfinished):
            name = f"{frame.role} sends {kind}"
            found[name] = found.get(name, 0) + 1
            found[name + SECONDS] = round((frame.when - sent[0].when) / 1e9, 6)
    for role, each in hosts.items():
        found |= {f"{role} counts {name}": value for name, value in each["counters"].items()
                  if not _MOVED.fullmatch(name.partition(" on ")[0])}
    for line in log:
        name = f"the kernel logs: {_NUMBER.sub('#', line)}"
        found[name] = found.get(name, 0) + 1
    for cell in cells:
        found[f"{CELL}{cell['table']}, {cell['column']}: {cell['seen']}"] = 1
    return found


def differences(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, str]:
    """By name, what differs: a count, or a time by more than the rounding of the kernel's timers."""
    found = {}
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, 0), after.get(name, 0)
        # A timer of t may be 1/8 t late (clock.align()), and so may one that waits for it.
        tolerance = 0.05 + 0.15 * old if name.endswith(SECONDS) else 0
        if abs(new - old) > tolerance:
            found[name] = f"{name}: {old:g} -> {new:g}"
    return found


class _Frame(NamedTuple):
    role: str
    when: int
    length: int
    unfinished: bool
    data: bytes


def _frames(role: str, packed: str | bytes) -> Iterator[_Frame]:
    data, at = packed if isinstance(packed, bytes) else _unpacked(role, packed), 0
    while at < len(data):
        when, length, kept, unfinished = FRAME.unpack_from(data, at)
        at += FRAME.size
        yield _Frame(role, when, length, unfinished, data[at:at + kept])
        at += kept


def _unpacked(role: str, packed: str) -> bytes:
    unpacking = zlib.decompressobj()
    data = unpacking.decompress(base64.b64decode(packed), MOST_FRAMES)
    if not unpacking.eof:
        raise ValueError(f"{role}: the frames are truncated, or have more than {MOST_FRAMES >> 20} MB")
    return data


def _kind(ethertype: bytes, data: bytes, length: int, flows: dict[bytes, int], unfinished: bool = False, quoted: bool = False) -> str:
    """A packet, in words that are the same each time; "" for unsolicited packets.

    `flows` has the first sequence number of each flow. A `quoted` packet is truncated, and was changed on its way.
    """
    if ethertype == _IP4 and len(data) >= 20:
        header, protocol = 4 * (data[0] & 15), data[9]
        fragment = int.from_bytes(data[6:8], "big")
        words = f"ipv4 ttl {data[8]} tos {data[1]:#x}"
        words += (" DF" if fragment & 0x4000 else "") + (f" options of {header - 20}" if header > 20 else "")
        if not quoted and _sum(data[:header]) != 0xFFFF:
            words += " bad header checksum"
        if fragment & 0x3FFF:
            return f"{words} fragment {8 * (fragment & 0x1FFF)}, {length} bytes"
        addresses, length = data[12:20], int.from_bytes(data[2:4], "big") or length
    elif ethertype == _IP6 and len(data) >= 40:
        header, protocol, addresses = 40, data[6], data[8:40]
        words = f"ipv6 ttl {data[7]} tos {int.from_bytes(data[:2], 'big') >> 4 & 0xFF:#x}"
        length = 40 + int.from_bytes(data[4:6], "big") if data[4:6] != b"\0\0" else length
        while protocol in _EXTENSIONS and len(data) > header + 1:
            protocol, header = data[header], header + 8 * (data[header + 1] + 1)
    else:
        return ""
    rest, size = data[header:], length - header
    if protocol in (_ICMP, _ICMP6) and len(rest) >= 8:
        if protocol == _ICMP6 and rest[0] in _HOUSEKEEPING:
            return ""
        words += f" {_icmp(protocol, rest, size, flows)}"
    elif protocol in _INNER:
        return f"{words} tunnel: {_kind(_INNER[protocol], rest, size, flows, unfinished, quoted)}"
    elif protocol == _TCP and len(rest) >= 20:
        words += f" {_segment(rest, size, addresses, flows)}"
    else:
        words += f" {_NAMES.get(protocol, f'protocol {protocol}')}, {size} bytes"
    return words + ("" if quoted else _checksum(protocol, addresses, rest, size, unfinished))


def _icmp(protocol: int, data: bytes, size: int, flows: dict[bytes, int]) -> str:
    kind, code = data[0], data[1]
    words = f"icmp {kind}/{code}"
    if kind not in _ERRORS[protocol]:
        return f"{words}, {size} bytes"
    parameter = int.from_bytes(data[4:8], "big")
    if (protocol, kind, code) in _PACKET_TOO_BIG:
        words += f" mtu {parameter}"
    elif parameter:
        words += f" parameter {parameter:#x}"
    about = _kind(_IP4 if protocol == _ICMP else _IP6, data[8:], size - 8, flows, quoted=True)
    return f"{words}, {size} bytes about {about}"


def _segment(data: bytes, size: int, addresses: bytes, flows: dict[bytes, int]) -> str:
    seq, ack, offset, bits, window = struct.unpack_from("!IIBBH", data, 4)
    flags = "".join(letter for bit, letter in enumerate("FSRPAUEC") if bits >> bit & 1)
    header = 4 * (offset >> 4)
    half = len(addresses) // 2
    flow, back = addresses + data[:4], addresses[half:] + addresses[:half] + data[2:4] + data[:2]
    if "S" in flags:
        flows[flow] = seq
    # All segments of a bulk transfer are of one kind.
    place = "" if size > header else f" seq {_relative(seq, flows.setdefault(flow, seq))}"
    if set(flags) & set("SFR"):
        place += f" ack {_relative(ack, flows.setdefault(back, ack)) if 'A' in flags else ack} window {window}"
    elif not window:
        place += " window 0"
    return f"tcp {flags}{place} len {size - header}{_options(data[20:header])}"


def _relative(number: int, first: int) -> str:
    """Relative to `first`, where the flow began; the distance to an earlier flow's numbers is random."""
    distance = number - first & 0xFFFFFFFF
    return "before it began" if 1 << 31 <= distance < 0xFFFFFFFF else f"{distance - 0x100000000 if distance == 0xFFFFFFFF else distance}"


def _checksum(protocol: int, addresses: bytes, data: bytes, size: int, unfinished: bool) -> str:
    """Says if the checksum (RFC 1071) is wrong, if all bytes are here. Behind UDP an `unfinished` one may be an inner packet's (VXLAN)."""
    at = _CHECKSUM_AT.get(protocol)
    if at is None or len(data) < size or protocol == _UDP and (unfinished or data[at:at + 2] == b"\0\0"):
        return ""
    pseudo = b"" if protocol == _ICMP else addresses + size.to_bytes(4, "big") + protocol.to_bytes(4, "big")
    if unfinished:
        right = int.from_bytes(data[at:at + 2], "big") == _sum(pseudo)
    else:
        right = _sum(pseudo + data[:size]) == 0xFFFF
    return "" if right else " bad checksum"


def _sum(data: bytes) -> int:
    """Ones' complement sum of 16-bit words."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2))
    return (sum(words) - 1) % 0xFFFF + 1 if any(words) else 0


def _options(data: bytes) -> str:
    words, at = "", 0
    while at + 1 < len(data) and data[at]:
        if data[at] == 1:
            at += 1
            continue
        words += f" mss {int.from_bytes(data[at + 2:at + 4], 'big')}" if data[at] == 2 else f" option {data[at]}"
        if data[at] == _TIMESTAMPS and data[at + 6:at + 10] == bytes(4):
            words += " without an echo"
        at += max(data[at + 1], 2)
    return words
