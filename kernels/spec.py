"""From a kernel specification (grammar in kernels.grammar) to a kernel on this machine."""

from common.errors import FetchError, SpecError
from kernels import debian, local
from kernels.cache import Cache
from kernels.extract import Kernel
from kernels.grammar import Spec, parse
from kernels.progress import Reporter

__all__ = ["FetchError", "Kernel", "Spec", "SpecError", "parse", "resolve"]


def resolve(spec: str, cache: Cache, *, offline: bool = False, progress: Reporter | None = None,
            mirror: str | None = None) -> Kernel:
    """The kernel that `spec` stands for, fetched and unpacked into the cache if it is not there yet.

    The kernel is in use, and so safe from pruning, until the cache is closed. `mirror` overrides the archive's address
    from the host's apt configuration. Raises SpecError for a specification that names no kernel and FetchError for a
    kernel that cannot be had; each is one line.
    """
    parsed = parse(spec)
    if parsed.kind == "running":
        raise SpecError("running: the running kernel is not fetched or booted")
    if parsed.kind in ("series", "exact"):
        archive = debian.Archive(cache, offline=offline, progress=progress or Reporter(), mirror=mirror)
        return debian.resolve(parsed, archive)
    return local.resolve(parsed, cache, progress or Reporter())
