"""Policies and security associations as values, and the kernel's messages to key managers."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Selector:
    """The packets that a policy matches: addresses or prefixes, IP protocol and ports; 0 matches any."""

    source: str
    destination: str
    protocol: int = 0
    sport: int = 0
    dport: int = 0


@dataclass(frozen=True)
class Template:
    """What a policy requires: ESP between these two addresses, with an SA of the same `reqid` and `mode` ("transport"
    or "tunnel"). An `optional` one is applied only where there is such an SA (ip-xfrm(8), "level use")."""

    source: str
    destination: str
    reqid: int = 1
    mode: str = "transport"
    optional: bool = False


@dataclass(frozen=True)
class Policy:
    """Packets that match the selector require the template. Without a template they pass unchanged or, with the action "block",
    are dropped. `direction` is "out", "in" or "fwd"; of two matching policies the lower `priority` wins. With `icmp` it also
    applies to ICMP errors about its packets (RFC 4301, 6), from any sender. It expires after `seconds`, which the kernel counts
    as whole seconds; 0 is never. A `mark` and an `interface` are as in SA."""

    selector: Selector
    template: Template | None = None
    direction: str = "out"
    action: str = "allow"
    priority: int = 0
    icmp: bool = False
    seconds: int = 0
    mark: tuple[int, int] | None = None
    interface: int = 0


@dataclass(frozen=True)
class Replay:
    """The sequence numbers of an SA (RFC 4303, 3.3.3 and 3.4.3): the last one `sent`, the highest `received`, and those below it that
    have not been received, `missing`. The `window` is in packets, 0 for no check. `kind` is "legacy" for the window of at most 32
    packets that struct xfrm_usersa_info has, "bitmap" for that of struct xfrm_replay_state_esn, and "ESN" for extended sequence
    numbers. With `wraps`, a number that is not extended may overflow (XFRM_SA_XFLAG_OSEQ_MAY_WRAP)."""

    kind: str = "legacy"
    window: int = 32
    sent: int = 0
    received: int = 0
    missing: frozenset[int] = frozenset()
    wraps: bool = False


@dataclass(frozen=True)
class Algorithm:
    """An algorithm of ESP by the kernel's `name`, such as "cbc(aes)": `kind` is "aead", "encryption" or "authentication". `icv` is the
    length of the check value in bits, for those that make one. Source: net/xfrm/xfrm_algo.c."""

    kind: str
    name: str
    key: bytes = field(repr=False)
    icv: int = 0


@dataclass(frozen=True)
class SA:
    """ESP with `algorithms`, or AES-128-GCM (RFC 4106) without them, from `source` to `destination`; `key` is that of the latter, 16
    bytes and 4 of salt. A `mark` is a value and a mask: the SA is only for packets whose mark has this value under the mask. `icmp` is
    as in Policy. `window` is the replay window in 32-bit words and enables extended sequence numbers; `interface` is the if_id.
    `seconds`, `packets` and `size`, in bytes, are soft and hard limits, 0 for none: at the soft one the kernel notifies key managers,
    at the hard one it deletes the SA. Packets within must match the `selector`, if there is one. `replay` overrides `window`."""

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
    size: tuple[int, int] = (0, 0)
    selector: Selector | None = None
    replay: Replay | None = None
    algorithms: tuple[Algorithm, ...] = ()


@dataclass(frozen=True)
class Acquire:
    """The kernel requests an SA for the flow `selector`, between `source` and `destination`, for a policy whose template has
    this `reqid`; `sequence` identifies the request. `policy_type` is 0 for XFRM_POLICY_TYPE_MAIN, None if the kernel sent a
    truncated one."""

    selector: Selector
    source: str
    destination: str
    reqid: int
    sequence: int
    policy_type: int | None


@dataclass(frozen=True)
class Expire:
    """A lifetime of an SA has expired; if `hard`, the kernel has deleted the SA. A larval SA has `spi` 0."""

    destination: str
    spi: int
    reqid: int
    sequence: int
    hard: bool
