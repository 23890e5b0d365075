"""How many of its objects the kernel has in use, by the name of their cache (slabinfo(5))."""

from collections.abc import Collection
from pathlib import Path

from .errors import MissingFeature

_CACHES = Path("/sys/kernel/slab")
_INFO = Path("/proc/slabinfo")


def in_use(names: Collection[str]) -> dict[str, int]:
    """Of those caches of these names that there are. Each processor's own free objects are given back first, which would
    count as used ones; a cache that was merged with others has no name (kernel parameter slab_nomerge).

    Raises MissingFeature where that needs more rights, or a kernel with CONFIG_SLUB_DEBUG, and where a cache keeps free objects in
    sheaves, from which none come back (seen on 7.2). Source: Documentation/ABI/testing/sysfs-kernel-slab.
    """
    try:
        for cache in filter(Path.exists, (_CACHES / name for name in names)):
            sheaves = cache / "sheaf_capacity"
            if sheaves.exists() and int(sheaves.read_text()):
                raise MissingFeature(f"counting the kernel's objects: free ones of {cache.name} stay in sheaves")
            (cache / "shrink").write_text("1")
        lines = _INFO.read_text().splitlines()
    except OSError as error:
        raise MissingFeature(f"counting the kernel's objects: {error}") from error
    rows = (line.split() for line in lines if not line.startswith(("slabinfo", "#")))
    return {name: int(active) for name, active, *_rest in rows if name in names}
