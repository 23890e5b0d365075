"""How many objects of each kind the kernel holds."""

import errno
import os
from pathlib import Path

from .errors import MissingFeature

_INFO = Path("/proc/slabinfo")
_CACHES = Path("/sys/kernel/slab")
# By cache, its file open for good: to open it takes objects too.
_shrink: dict[str, int] = {}


def objects() -> dict[str, int]:
    """Objects in use by cache, of the whole machine. Raises MissingFeature where they are not shown.

    Freed ones that a processor keeps for its next needs would count as used: each cache is told to give them back.
    Source: Documentation/ABI/testing/sysfs-kernel-slab; slabinfo(5).
    """
    try:
        for entry in os.scandir(_CACHES):
            # A cache that was merged into another is a link to it.
            if entry.name not in _shrink and not entry.is_symlink():
                _shrink[entry.name] = os.open(f"{entry.path}/shrink", os.O_WRONLY | os.O_CLOEXEC)
        for name, descriptor in list(_shrink.items()):
            try:
                os.pwrite(descriptor, b"1", 0)
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise
                # Its module was unloaded.
                os.close(_shrink.pop(name))
        lines = _INFO.read_text().splitlines()[2:]
    except OSError as error:
        raise MissingFeature(f"objects of the kernel by kind: {error}") from error
    return {name: int(active) for name, active, *_rest in map(str.split, lines)}
