"""The structures of include/uapi/linux/xfrm.h, packed and unpacked. All numbers are the kernel's own."""

import ipaddress
import socket
import struct
from typing import Union

from netns.netlink.ipsec import SA, Acquire, Algorithm, Expire, Policy, Replay, Selector, Template
from netns.netlink.message import HEADER, attribute, attributes

NEWSA, DELSA, NEWPOLICY, DELPOLICY = 0x10, 0x11, 0x13, 0x14
ACQUIRE, EXPIRE, UPDPOLICY, UPDSA, NEWAE, GETAE = 0x17, 0x18, 0x19, 0x1A, 0x1E, 0x1F
GROUP_ACQUIRE, GROUP_EXPIRE = 1 << 0, 1 << 1

_ATTRIBUTE_TMPL, _ATTRIBUTE_POLICY_TYPE, _ATTRIBUTE_MARK, _ATTRIBUTE_ESN, _ATTRIBUTE_IF_ID = 5, 16, 21, 23, 31
_ATTRIBUTE_REPLAY, _ATTRIBUTE_EXTRA_FLAGS, _SEQUENCE_MAY_WRAP = 10, 24, 2
_MAIN_POLICY = bytes(6)                     # struct xfrm_userpolicy_type; not sent without CONFIG_XFRM_SUB_POLICY
_STATE_ICMP, _STATE_ESN, _POLICY_ICMP = 16, 128, 2
_DIRECTIONS = {"in": 0, "out": 1, "fwd": 2}
_ACTIONS = {"allow": 0, "block": 1}
_MODES = {"transport": 0, "tunnel": 1}
_ESP = socket.IPPROTO_ESP
_ALL_ALGORITHMS = 0xFFFFFFFF
_NO_LIMIT = 0xFFFFFFFFFFFFFFFF
_ICV_LENGTH = 128
_LOW = 0xFFFFFFFF                               # 32 bits of an extended sequence number

_SELECTOR = struct.Struct("=16s16sHHHHHBBB3xiI")  # daddr saddr dport mask sport mask family prefixes proto ifindex user
_LIFETIME_LIMITS = struct.Struct("=8Q")
_LIFETIME_USED = struct.Struct("=4Q")
_POLICY_END = struct.Struct("=IIBBBB4x")        # priority index dir action flags share
POLICY_SIZE = _SELECTOR.size + _LIFETIME_LIMITS.size + _LIFETIME_USED.size + _POLICY_END.size
_ID = struct.Struct("=16s4sB3x")                # daddr spi proto
_TEMPLATE = struct.Struct("=16s4sB3xH2x16sIBBBxIII")  # id family saddr reqid mode share optional aalgos ealgos calgos
_SA_END = struct.Struct("=12xIIHBBB7x")         # stats seq reqid family mode replay_window flags
SA_SIZE = _SELECTOR.size + _ID.size + 16 + _LIFETIME_LIMITS.size + _LIFETIME_USED.size + _SA_END.size
SA_PROTOCOL_AT = _SELECTOR.size + 20        # of struct xfrm_usersa_info; its SPI is before it
_POLICY_ID = struct.Struct("=IB3x")             # index dir
_SA_ID = struct.Struct("=16s4sHBx")             # daddr spi family proto
# Of each kind of algorithm the attribute; name, key length and, except for encryption, ICV length in bits.
_ALGORITHMS = {
    "aead": (18, struct.Struct("=64sII")), "encryption": (2, struct.Struct("=64sI")), "authentication": (20, struct.Struct("=64sII")),
}


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _lifetime(seconds: tuple[int, int], packets: tuple[int, int] = (0, 0), size: tuple[int, int] = (0, 0)) -> bytes:
    """struct xfrm_lifetime_cfg and struct xfrm_lifetime_cur; of each pair the soft limit and the hard one."""
    limits = _LIFETIME_LIMITS.pack(*(limit or _NO_LIMIT for limit in size + packets), *seconds, 0, 0)
    return limits + bytes(_LIFETIME_USED.size)


def policy(it: Policy) -> bytes:
    """struct xfrm_userpolicy_info."""
    share_any = 0
    return selector(it.selector) + _lifetime((0, it.seconds)) + _POLICY_END.pack(
        it.priority, 0, _DIRECTIONS[it.direction], _ACTIONS[it.action], _POLICY_ICMP if it.icmp else 0, share_any
    )


def policy_with_template(it: Policy) -> bytes:
    return policy(it) + (attribute(_ATTRIBUTE_TMPL, template(it.template)) if it.template else b"") + _mark(it) + _interface(it)


def policy_id(it: Policy) -> bytes:
    return selector(it.selector) + _POLICY_ID.pack(0, _DIRECTIONS[it.direction]) + _mark(it) + _interface(it)


def template(it: Template) -> bytes:
    """struct xfrm_user_tmpl."""
    return _TEMPLATE.pack(
        _address(it.destination), _spi(0), _ESP, family_of(it.destination), _address(it.source), it.reqid,
        _MODES[it.mode], 0, it.optional, *[_ALL_ALGORITHMS] * 3
    )


def sa(it: SA) -> bytes:
    """struct xfrm_usersa_info, the algorithms, the mark, the sequence numbers and the if_id."""
    algorithms = it.algorithms or (Algorithm("aead", "rfc4106(gcm(aes))", it.key, _ICV_LENGTH),)
    replay = it.replay or (Replay("ESN", 32 * it.window) if it.window else Replay())
    flags = (_STATE_ICMP if it.icmp else 0) | (_STATE_ESN if replay.kind == "ESN" else 0)
    return (
        (selector(it.selector) if it.selector else bytes(_SELECTOR.size)) + _ID.pack(_address(it.destination), _spi(it.spi), _ESP)
        + _address(it.source) + _lifetime(it.seconds, it.packets, it.size)
        + _SA_END.pack(0, it.reqid, family_of(it.destination), _MODES[it.mode], replay.window if replay.kind == "legacy" else 0, flags)
        + b"".join(map(_algorithm, algorithms)) + _mark(it) + _sequence(replay) + _interface(it)
    )


def _sequence(it: Replay) -> bytes:
    """struct xfrm_replay_state or struct xfrm_replay_state_esn, and the flag for one that may wrap."""
    held = [number for number in range(max(1, it.received - it.window + 1), it.received + 1) if number not in it.missing]
    if it.kind == "legacy":
        state = struct.pack("=III", it.sent, it.received, sum(1 << it.received - number for number in held))
        found = attribute(_ATTRIBUTE_REPLAY, state) if any(state) else b""
    else:
        words, bits = (it.window + 31) // 32, sum(1 << (number - 1 & _LOW) % it.window for number in held)
        state = struct.pack("=6I", words, it.sent & _LOW, it.received & _LOW, it.sent >> 32, it.received >> 32, it.window)
        found = attribute(_ATTRIBUTE_ESN, state + bits.to_bytes(4 * words, "little"))
    return found + (attribute(_ATTRIBUTE_EXTRA_FLAGS, struct.pack("=I", _SEQUENCE_MAY_WRAP)) if it.wraps else b"")


def _algorithm(it: Algorithm) -> bytes:
    """An attribute with struct xfrm_algo, xfrm_algo_auth or xfrm_algo_aead."""
    number, layout = _ALGORITHMS[it.kind]
    lengths = (8 * len(it.key),) if it.kind == "encryption" else (8 * len(it.key), it.icv)
    return attribute(number, layout.pack(it.name.encode(), *lengths) + it.key)


def sa_id(it: SA) -> bytes:
    return _SA_ID.pack(_address(it.destination), _spi(it.spi), family_of(it.destination), _ESP) + _mark(it)


def _mark(it: Union[SA, Policy]) -> bytes:
    return attribute(_ATTRIBUTE_MARK, struct.pack("=II", *it.mark)) if it.mark else b""


def _interface(it: Union[SA, Policy]) -> bytes:
    return attribute(_ATTRIBUTE_IF_ID, struct.pack("=I", it.interface)) if it.interface else b""


def selector(it: Selector) -> bytes:
    """struct xfrm_selector; a port of 0 means any."""
    source, destination = (ipaddress.ip_network(text) for text in (it.source, it.destination))
    return _SELECTOR.pack(
        destination.network_address.packed, source.network_address.packed,
        socket.htons(it.dport), 0xFFFF if it.dport else 0, socket.htons(it.sport), 0xFFFF if it.sport else 0,
        family_of(it.destination), destination.prefixlen, source.prefixlen, it.protocol, 0, 0
    )


def event(datagram: bytes) -> Union[Acquire, Expire, None]:
    """The first message of a datagram, None if it is neither an ACQUIRE nor an EXPIRE."""
    length, kind, *_rest = HEADER.unpack_from(datagram)
    body = datagram[HEADER.size:length]
    if kind == ACQUIRE:
        return _acquire(body)
    if kind == EXPIRE:
        return _expire(body)
    return None


def _acquire(body: bytes) -> Acquire:
    destination, _spi_, _protocol = _ID.unpack_from(body)
    at = _ID.size + 16
    flow, family = _read_selector(body, at)
    at += _SELECTOR.size + POLICY_SIZE
    *_algorithms, sequence = struct.unpack_from("=IIII", body, at)
    found = dict(attributes(body, at + 16))
    template, policy_type = found.get(_ATTRIBUTE_TMPL), found.get(_ATTRIBUTE_POLICY_TYPE, _MAIN_POLICY)
    return Acquire(flow, _text(family, body[_ID.size:_ID.size + 16]), _text(family, destination),
                   _TEMPLATE.unpack_from(template)[5] if template else 0, sequence,
                   policy_type[0] if len(policy_type) == len(_MAIN_POLICY) else None)


def _expire(body: bytes) -> Expire:
    destination, spi, _protocol = _ID.unpack_from(body, _SELECTOR.size)
    sequence, reqid, family, *_rest = _SA_END.unpack_from(body, SA_SIZE - _SA_END.size)
    return Expire(_text(family, destination), int.from_bytes(spi, "big"), reqid, sequence, bool(body[SA_SIZE]))


def _read_selector(body: bytes, at: int) -> tuple[Selector, int]:
    daddr, saddr, dport, _dmask, sport, _smask, family, dprefix, sprefix, protocol, *_rest = \
        _SELECTOR.unpack_from(body, at)
    return Selector(
        source=_network(family, saddr, sprefix), destination=_network(family, daddr, dprefix), protocol=protocol,
        sport=socket.ntohs(sport), dport=socket.ntohs(dport),
    ), family


def _network(family: int, packed: bytes, prefix: int) -> str:
    """As Selector has it: without the prefix for a single address."""
    text = _text(family, packed)
    return text if prefix == (32 if family == socket.AF_INET else 128) else f"{text}/{prefix}"


def _address(text: str) -> bytes:
    """xfrm_address_t."""
    return ipaddress.ip_address(text).packed.ljust(16, b"\0")


def _text(family: int, packed: bytes) -> str:
    return socket.inet_ntop(family, packed[:4] if family == socket.AF_INET else packed)


def _spi(number: int) -> bytes:
    return number.to_bytes(4, "big")
