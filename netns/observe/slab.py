"""How many of its objects the kernel has in use, by the name of their cache (slabinfo(5))."""

from collections.abc import Collection, Mapping
from pathlib import Path

from netns.errors import HostLacks

_CACHES = Path("/sys/kernel/slab")
_INFO = Path("/proc/slabinfo")
ROUTES = ("rtable", "ip_dst_cache", "ip6_dst_cache")    # IPv4's have had two names


def unnamed() -> list[str]:
    """The caches of kmalloc(), from which comes what has none of its own."""
    return [path.name for path in _CACHES.glob("kmalloc*")]


def in_use(names: Collection[str]) -> dict[str, int]:
    """Of those caches of these names that there are. Each processor's own free objects are given back first, which would
    count as used ones; a cache that was merged with others has no name (kernel parameter slab_nomerge).

    They are means of a test and no feature that anybody uses. Raises HostLacks where that needs more rights, or a kernel with CONFIG_SLUB_DEBUG, and where a cache keeps free objects in
    sheaves, from which none come back (seen on 7.2). Source: Documentation/ABI/testing/sysfs-kernel-slab.
    """
    try:
        for cache in filter(Path.exists, (_CACHES / name for name in names)):
            sheaves = cache / "sheaf_capacity"
            if sheaves.exists() and int(sheaves.read_text()):
                raise HostLacks(f"counting the kernel's objects: free ones of {cache.name} stay in sheaves")
            (cache / "shrink").write_text("1")
        lines = _INFO.read_text().splitlines()
    except OSError as error:
        raise HostLacks(f"counting the kernel's objects: {error}") from error
    rows = (line.split() for line in lines if not line.startswith(("slabinfo", "#")))
    return {name: int(active) for name, active, *_rest in rows if name in names}


def grown(before: Mapping[str, int], by: int = 0) -> dict[str, int]:
    """Those of these caches, as in_use() found them, that have over `by` objects more in use now, and how many more. Raises
    HostLacks."""
    more = {name: count - before[name] for name, count in in_use(before).items()}
    return {name: count for name, count in more.items() if count > by}
