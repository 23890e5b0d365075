"""Modules that the user names, for a machine whose boot image lacks them."""
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from command.files import rooted
from common.errors import SpecError
from common.temporary import GuardedDirectory
from kernels.extract import Kernel
from kernels.modules import closure, files, plain_name, stage


def add_modules(archive: Path, target: Path, kernel: Kernel, names: Sequence[str]) -> None:
    """Write a copy of the archive with these modules, those that they need, and listings of these and the boot image's.

    Raises SpecError if the kernel has no such module, FetchError.
    """
    check_modules(kernel, names)
    shutil.copyfile(archive, target)
    if not kernel.modules:
        return                              # it has them built in
    there = closure(kernel.modules, kernel.release)
    every = closure(kernel.modules, kernel.release, [plain_name(name) for name in names])
    with GuardedDirectory("kdrift-modules-") as root, tarfile.open(target, "a") as tar:
        stage(Path(root), kernel, every)
        place = Path(root, "lib/modules", kernel.release)
        present = {name.removesuffix(".xz").removesuffix(".gz") for name in there}
        for file in sorted(place.rglob("*")):
            if file.is_file() and str(file.relative_to(place)) not in present:
                tar.add(file, str(file.relative_to(root)), filter=rooted)


def check_modules(kernel: Kernel, names: Sequence[str]) -> None:
    """Raises SpecError for a module that the kernel neither has nor has built in."""
    builtin = kernel.modules / "modules.builtin" if kernel.modules else None
    lines = builtin.read_text(errors="replace").splitlines() if builtin and builtin.is_file() else []
    known = {plain_name(line) for line in lines}
    if kernel.modules:
        known |= {plain_name(name) for name in files(kernel.modules)}
    for name in names:
        if plain_name(name) not in known:
            raise SpecError(f"--module {name}: {kernel.spec} ({kernel.release}) has no such module")
