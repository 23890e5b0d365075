"""From a kernel specification (see kernels.grammar) to a kernel on this machine."""

from common.errors import FetchError, SpecError
from kernels import debian, local
from kernels.cache import Cache
from kernels.extract import Kernel
from kernels.grammar import LocalSpec, Spec, parse
from kernels.progress import Reporter

__all__ = ["FetchError", "Kernel", "Spec", "SpecError", "parse", "resolve"]


def resolve(spec: str, cache: Cache, *, offline: bool = False, progress: Reporter | None = None,
            mirror: str | None = None, allow_unverified: bool = False) -> Kernel:
    """The kernel that `spec` names, fetched and unpacked into the cache if necessary.

    The kernel is in use, and so safe from pruning, until the cache is closed. `mirror` overrides the archive's URI from
    the host's apt configuration. A Debian kernel whose files no signature covers is refused, unless `allow_unverified`.
    Raises SpecError if the specification names no kernel and FetchError if the kernel cannot be fetched; each is one line.
    """
    parsed = parse(spec)
    if isinstance(parsed, LocalSpec):
        return local.resolve(parsed, cache, progress or Reporter())
    archive = debian.Archive(cache, offline=offline, progress=progress or Reporter(), mirror=mirror,
                             allow_unverified=allow_unverified)
    return debian.resolve(parsed, archive)
