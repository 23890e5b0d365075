"""A kernel's modules: which files they are, what they need, and a copy of those that tests may need for the boot image.

They are taken as they lie: installed below lib/modules, or in the tree where they were built.  What belongs to the listing, as
modules.dep, is made here where it is missing.
"""
import gzip
import hashlib
import lzma
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from common.errors import FetchError
from kernels.extract import Kernel

# Modules by directory below kernel/: everything of these is packed together with what it depends on.
WANTED = ["net", "crypto", "lib", "arch/x86/crypto", "drivers/char/virtio_console", "drivers/virtio", "drivers/usb/host",
          "drivers/usb/core", "drivers/usb/common"]
NET_DRIVERS = ["veth", "tun", "tap", "dummy", "ifb", "vxlan", "geneve", "bareudp", "vrf", "macvlan", "macvtap", "ipvlan",
               "bonding", "nlmon", "netdevsim", "wireguard", "team", "amt", "gtp", "netkit", "vcan"]
LEFT_OUT = ["net/bluetooth", "net/mac80211", "net/wireless", "net/sunrpc", "net/ceph", "net/nfc", "net/can", "net/rds",
            "net/tipc", "net/smc", "net/batman-adv", "net/9p", "net/atm", "net/ax25", "net/appletalk", "net/mac802154"]
ENDINGS = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")
# modprobe of a guest may know neither; .zst is left to it.
UNPACK: dict[str, Callable[[bytes], bytes]] = {".xz": lzma.decompress, ".gz": gzip.decompress}


def files(directory: Path) -> list[str]:
    """The modules below an installed directory or a built tree, by name."""
    order = directory / "modules.order"
    if (directory / "Makefile").exists() and order.is_file():   # a tree has more .ko files than it installs: those of its samples
        return sorted(name for line in order.read_text().splitlines() if (name := _built(directory, line)))
    found = []
    for place, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if name not in ("build", "source")]
        found += [os.path.relpath(os.path.join(place, name), directory) for name in names if name.endswith(ENDINGS)]
    return sorted(found)


def _built(tree: Path, line: str) -> str | None:
    """A line of a tree's modules.order, which names net/x.o since 6.2, kernel/net/x.ko before; None where it is not built."""
    name = os.path.splitext(line.strip())[0].removeprefix("kernel/").lstrip("/") + ".ko"
    return name if ".." not in Path(name).parts and (tree / name).is_file() else None


def build_of(kernel: Kernel) -> str:
    """What tells builds of one release apart, wherever they lie: its image's contents, its modules' names and sizes."""
    identity = hashlib.sha256(kernel.vmlinuz.read_bytes())
    for name in files(kernel.modules) if kernel.modules else []:
        identity.update(f"{name} {(kernel.modules / name).stat().st_size}\n".encode())
    return identity.hexdigest()[:16]


def identity(modules: Path) -> str:
    """Names, sizes and times of all modules: a rebuilt module changes it, and nothing has to be read."""
    found = hashlib.sha256()
    for name in files(modules):
        state = os.lstat(modules / name)
        found.update(f"{modules}/{name} {state.st_size} {state.st_mtime_ns}\n".encode())
    return found.hexdigest()


def are_installed(directory: Path) -> bool:
    """Whether it is what a machine has below lib/modules, complete."""
    return not (directory / "Makefile").exists() and (directory / "modules.dep").is_file()


def stage(root: Path, kernel: Kernel, names: Sequence[str] | None = None) -> None:
    """Copy modules to lib/modules below `root`, uncompressed, with their listing: all that tests may need, or else `names`.

    Raises FetchError.
    """
    source = kernel.modules
    target = root / "lib/modules" / kernel.release
    for name in closure(source, kernel.release) if names is None else names:
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        copy(source / name, place)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        if (source / name).exists():
            shutil.copy(source / name, target / name)
    depmod(root, kernel.release)


def copy(module: Path, target: Path) -> None:
    """Copy a module, or unpack it, which takes the ending of its name away.  Raises FetchError where it is damaged."""
    if not (unpack := UNPACK.get(module.suffix)):
        shutil.copy(module, target)
        return
    try:
        target.with_suffix("").write_bytes(unpack(module.read_bytes()))
    except (lzma.LZMAError, EOFError, gzip.BadGzipFile, gzip.zlib.error) as error:
        raise FetchError(f"{module} is truncated or damaged ({error})") from None


def closure(source: Path, release: str) -> list[str]:
    """The modules that are wanted and all that they depend on."""
    depends = dependencies(source, release)
    queue = [name for name in depends if wanted(name)]
    seen = set(queue)
    while queue:
        for name in depends[queue.pop()]:
            if name not in seen:
                seen.add(name)
                queue.append(name)
    return sorted(seen)


def wanted(name: str) -> bool:
    path = name.removeprefix("kernel/")
    stem = os.path.basename(path).split(".")[0]
    if any(path.startswith(place + "/") for place in LEFT_OUT):
        return False
    return any(path.startswith(place) for place in WANTED) or (path.startswith("drivers/net/") and stem in NET_DRIVERS)


def dependencies(source: Path, release: str) -> dict[str, list[str]]:
    """What each module needs, as modules.dep says; where that is missing or of other files, it is made.  Raises FetchError."""
    names = files(source)
    listing = source / "modules.dep"
    found = parse(listing.read_text()) if listing.is_file() else {}
    known = set(names)                      # a listing may name anything
    if known <= found.keys() and all(known.issuperset(found[name]) for name in names):
        return {name: found[name] for name in names}
    with tempfile.TemporaryDirectory(prefix="kdrift-modules-") as root:
        there = Path(root, "lib/modules", release)
        given = {}                          # by the name that depmod sees
        for name in names:
            place = there / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.suffix == ".gz":       # which Debian's depmod cannot read
                copy(source / name, place)
                given[name.removesuffix(".gz")] = name
            else:
                place.symlink_to((source / name).absolute())
                given[name] = name
        depmod(Path(root), release)
        found = parse((there / "modules.dep").read_text())
    return {given[name]: [given[need] for need in needs] for name, needs in found.items()}


def parse(listing: str) -> dict[str, list[str]]:
    """Of modules.dep(5)."""
    lines = (line.partition(":") for line in listing.splitlines())
    return {name: needs.split() for name, colon, needs in lines if colon}


def depmod(root: Path, release: str) -> None:
    """Write the listing of the modules below `root`.  Raises FetchError."""
    program = shutil.which("depmod") or shutil.which("depmod", path="/usr/sbin:/sbin")
    if program is None:
        raise FetchError("depmod is not installed here: install the package kmod")
    run = subprocess.run([program, "-b", str(root), release], capture_output=True, text=True, errors="replace")
    if run.returncode:
        raise FetchError(f"depmod does not take the modules of {release}: {(run.stderr.splitlines() or ['no reason given'])[-1]}")
