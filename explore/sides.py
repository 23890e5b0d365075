"""The machines of an exploration, booted."""
from collections.abc import Sequence
from pathlib import Path

from common.errors import CacheError, trouble_of
from common.threads import side_by_side
from explore.bench import ScenarioBench
from explore.observation import INFO
from explore.study import Side
from kernels.extract import Kernel
from netns.scenario.run import TCP_INFO
from report.results import KernelResult
from rerun.conversation import Gone
from vm.image import ImageError
from vm.qemu import VMError


def sides_of(kernels: Sequence[Kernel], specs: Sequence[str], directory: Path) -> tuple[Side, Side]:
    """Of an old kernel and a new one; one kernel that is on both sides has one machine. Raises CacheError, ImageError."""
    benches: dict[str, ScenarioBench] = {}
    for number, kernel in enumerate(kernels):
        if kernel.key not in benches:
            benches[kernel.key] = ScenarioBench(kernel, directory / str(number))
    old, new = (Side(benches[kernel.key], KernelResult(spec, spec, kernel.release, kernel.package, kernel.version, clock="virtual"))
                for kernel, spec in zip(kernels, specs, strict=True))
    return old, new


def boot_all(sides: Sequence[Side], slots: int) -> str:
    """Boot the machines; why one could not be booted, or nothing."""
    benches = list(dict.fromkeys(side.bench for side in sides))

    def boot(bench: ScenarioBench) -> str:
        try:
            bench.boot()
        except (Gone, VMError, ImageError, CacheError, OSError) as error:
            return f"{bench.kernel.release}: {trouble_of(error)}"
        return ""

    def end() -> None:
        for bench in benches:
            bench.end()

    troubles = dict(side_by_side(boot, benches, slots, end))
    trouble = next(filter(None, (troubles[bench] for bench in benches)), "")
    for side in sides:
        side.result.counters = [*side.bench.counters, *(f"{INFO}{name}" for name in TCP_INFO)]
    return trouble
