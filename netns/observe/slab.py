"""The number of slab objects that the kernel has in use, by cache name (slabinfo(5))."""

import socket
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from netns.errors import MissingOnHost
from netns.wait import at_least, eventually

_CACHES = Path("/sys/kernel/slab")
_INFO = Path("/proc/slabinfo")
ROUTES = {socket.AF_INET: ("rtable", "ip_dst_cache"), socket.AF_INET6: ("ip6_dst_cache",)}     # IPv4's has had two names


def unnamed() -> list[str]:
    """The kmalloc() caches, which serve objects without a cache of their own."""
    return [path.name for path in _CACHES.glob("kmalloc*")]


def in_use(names: Collection[str]) -> dict[str, int]:
    """Objects in use in each of the named caches that exist. Shrinks the caches first, because slabinfo counts free objects
    in per-CPU lists as used. A merged cache has no name (kernel parameter slab_nomerge).

    Raises MissingOnHost, since this is a means of tests and no feature for users: without permission or CONFIG_SLUB_DEBUG,
    and if a cache keeps free objects in sheaves, which shrinking does not empty (seen on 7.2).
    Source: Documentation/ABI/testing/sysfs-kernel-slab.
    """
    try:
        for cache in filter(Path.exists, (_CACHES / name for name in names)):
            sheaves = cache / "sheaf_capacity"
            if sheaves.exists() and int(sheaves.read_text()):
                raise MissingOnHost(f"cannot count slab objects: free objects of {cache.name} stay in sheaves")
            (cache / "shrink").write_text("1")
        lines = _INFO.read_text().splitlines()
    except OSError as error:
        raise MissingOnHost(f"cannot count slab objects: {error}") from error
    rows = (line.split() for line in lines if not line.startswith(("slabinfo", "#")))
    return {name: int(active) for name, active, *_rest in rows if name in names}


def grown(before: Mapping[str, int], by: int = 0) -> dict[str, int]:
    """The caches of `before`, a result of in_use(), that have more than `by` additional objects in use, and how many. Raises
    MissingOnHost."""
    more = {name: count - before[name] for name, count in in_use(before).items()}
    return {name: count for name, count in more.items() if count > by}


def settled(names: Collection[str], quiet: float = 2, within: float = 60) -> dict[str, int]:
    """The result of in_use() once it has been the same for `quiet` seconds: what earlier namespaces leave goes after some RCU grace
    periods. Caches of common sizes (unnamed()) never come to rest. Raises MissingOnHost; ExpectationFailed after `within` seconds."""
    count, since = in_use(names), time.monotonic()

    def still() -> float:
        nonlocal count, since
        now = in_use(names)
        if now != count:
            count, since = now, time.monotonic()
        return time.monotonic() - since

    eventually("seconds without a change of slab caches", still, at_least(quiet), within=within, every=0.25)
    return count


def slopes(names: Collection[str], repeat: Callable[[int], object], times: int = 100) -> dict[str, float]:
    """By cache, how many objects more each call of `repeat` leaves in use: repeat(count) does it `count` times. It is done once before.
    A leak of one object each time is 1. Raises like settled()."""
    repeat(1)
    before = settled(names)
    repeat(times)
    return {name: (count - before.get(name, 0)) / times for name, count in settled(names).items()}
