"""Policies and security associations as values, and what the kernel tells those who negotiate keys."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Selector:
    """The packets that a policy is for: addresses or prefixes, an IP protocol and ports; 0 is any."""

    source: str
    destination: str
    protocol: int = 0
    sport: int = 0
    dport: int = 0


@dataclass(frozen=True)
class Template:
    """What a policy asks for: ESP between these two addresses, by an SA with the same `reqid` and `mode` ("transport"
    or "tunnel")."""

    source: str
    destination: str
    reqid: int = 1
    mode: str = "transport"


@dataclass(frozen=True)
class Policy:
    """Packets of the selector need what the template says. Without a template they may pass as they are, or with the
    action "block" not at all. `direction` is "out", "in" or "fwd"; of two that match, the lower `priority` wins.
    With `icmp` it is also for ICMP errors about its packets (RFC 4301, 6), whoever sends them. After `seconds`, which the kernel
    counts whole, it is removed; 0 is never."""

    selector: Selector
    template: Template | None = None
    direction: str = "out"
    action: str = "allow"
    priority: int = 0
    icmp: bool = False
    seconds: int = 0


@dataclass(frozen=True)
class SA:
    """ESP with AES-128-GCM (RFC 4106) from `source` to `destination`; `key` is 16 bytes of key and 4 of salt. With a
    `mark`, a value and a mask, it is for packets whose mark has this value under this mask. `icmp` is as in Policy.
    With `window`, 32-bit words of replay window, it has extended sequence numbers; `interface` is its if_id. `seconds` and
    `packets` are two limits each, 0 for none: at the first one key managers are told, at the second one it is removed."""

    source: str
    destination: str
    spi: int
    reqid: int = 1
    mode: str = "transport"
    key: bytes = field(default=bytes(range(20)), repr=False)
    mark: tuple[int, int] | None = None
    icmp: bool = False
    window: int = 0
    interface: int = 0
    seconds: tuple[int, int] = (0, 0)
    packets: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Acquire:
    """The kernel asks for an SA: for the flow `selector`, between `source` and `destination`, to serve a policy whose
    template has this `reqid`; it knows its request by `sequence`. `policy_type` is 0 for XFRM_POLICY_TYPE_MAIN, None where
    the kernel says it by half."""

    selector: Selector
    source: str
    destination: str
    reqid: int
    sequence: int
    policy_type: int | None


@dataclass(frozen=True)
class Expire:
    """An SA's time is over; `hard` says that the kernel has removed it. A larval SA has `spi` 0."""

    destination: str
    spi: int
    reqid: int
    sequence: int
    hard: bool
