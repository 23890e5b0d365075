"""A kernel's modules: their files, their dependencies, and a copy for the boot image of those that tests may need.

They are used in place: installed below lib/modules, or in the tree that built them.  Missing listings, such as
modules.dep, are made here.  Only regular files below the directory are a kernel's: no link is followed, whatever a listing names.
"""
import gzip
import hashlib
import lzma
import os
import shutil
import subprocess
import zlib
from collections.abc import Sequence
from pathlib import Path

from common.errors import FetchError
from common.temporary import GuardedDirectory
from kernels.extract import Kernel

# Directories below kernel/ whose modules are packed, with all their dependencies.
WANTED = ["net", "crypto", "lib", "arch/x86/crypto", "drivers/char/virtio_console", "drivers/virtio", "drivers/usb/host",
          "drivers/usb/core", "drivers/usb/common"]
NET_DRIVERS = ["veth", "tun", "tap", "dummy", "ifb", "vxlan", "geneve", "bareudp", "vrf", "macvlan", "macvtap", "ipvlan",
               "bonding", "nlmon", "netdevsim", "wireguard", "team", "amt", "gtp", "netkit", "vcan"]
LEFT_OUT = ["net/bluetooth", "net/mac80211", "net/wireless", "net/sunrpc", "net/ceph", "net/nfc", "net/can", "net/rds",
            "net/tipc", "net/smc", "net/batman-adv", "net/9p", "net/atm", "net/ax25", "net/appletalk", "net/mac802154"]
ENDINGS = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")
LISTINGS = ("modules.builtin", "modules.builtin.modinfo", "modules.order")     # besides those that depmod makes
LARGEST = 256 << 20                         # bytes of a module
DEPMOD_LIMITS = ("--as=4294967296", "--cpu=300")        # prlimit(1): bytes, seconds; it decompresses modules itself


def files(directory: Path) -> list[str]:
    """The modules below an installed directory or a built tree, as sorted relative paths."""
    order = directory / "modules.order"
    if (directory / "Makefile").exists() and order.is_file():   # a tree has more .ko files than it installs: those of its samples
        return sorted(name for line in order.read_text(errors="replace").splitlines() if (name := _built(directory, line)))
    found = []
    for place, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if name not in ("build", "source")]
        found += [os.path.relpath(os.path.join(place, name), directory) for name in names if name.endswith(ENDINGS)]
    return sorted(name for name in found if _is_plain(name) and _is_regular(directory / name))


def _is_plain(name: str) -> bool:
    """Whether modules.dep can name it."""
    return name.isprintable() and not set(name) & {" ", ":"}


def _is_regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _built(tree: Path, line: str) -> str | None:
    """The module on a line of a tree's modules.order (net/x.o since 6.2, kernel/net/x.ko before); None if it is not built."""
    name = os.path.splitext(line.strip())[0].removeprefix("kernel/").lstrip("/") + ".ko"
    return name if ".." not in Path(name).parts and _is_plain(name) and _is_regular(tree / name) else None


def build_of(kernel: Kernel) -> str:
    """A hash that tells builds of one release apart, whatever their paths: of the image, and of the modules' names and sizes."""
    identity = hashlib.sha256(kernel.vmlinuz.read_bytes())
    if modules := kernel.modules:
        for name in files(modules):
            identity.update(f"{name} {(modules / name).stat().st_size}\n".encode())
    return identity.hexdigest()[:16]


def identity(modules: Path) -> str:
    """A hash of names, sizes and times of all modules: a rebuilt module changes it, and no file is read."""
    found = hashlib.sha256()
    for name in files(modules):
        state = os.lstat(modules / name)
        found.update(f"{modules}/{name} {state.st_size} {state.st_mtime_ns}\n".encode())
    return found.hexdigest()


def are_installed(directory: Path) -> bool:
    """Whether the directory is a complete installation, as below lib/modules."""
    return not (directory / "Makefile").exists() and (directory / "modules.dep").is_file()


def stage(root: Path, kernel: Kernel, names: Sequence[str] | None = None) -> None:
    """Copy modules to lib/modules below `root`, uncompressed, with modules.dep: all that tests may need, or else `names`.

    Copies nothing if the kernel has none.  Raises FetchError.
    """
    source = kernel.modules
    if source is None:
        return
    target = root / "lib/modules" / kernel.release
    target.mkdir(parents=True, exist_ok=True)
    for name in closure(source, kernel.release) if names is None else names:
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        copy(source / name, place)
    for name in LISTINGS:
        if _is_regular(source / name):
            shutil.copy(source / name, target / name)
    depmod(root, kernel.release)


def copy(module: Path, target: Path) -> None:
    """Copy a module, decompressing it and dropping that suffix if the guest's modprobe may not.  Raises FetchError if it is damaged."""
    if module.suffix in (".xz", ".gz"):
        target.with_suffix("").write_bytes(contents(module))
    else:
        shutil.copyfile(module, target)


def contents(module: Path) -> bytes:
    """A module's bytes, decompressed from .xz and .gz.  Raises FetchError if it is damaged or too large to be a module."""
    try:
        with module.open("rb") as packed:
            xz, gz = module.suffix == ".xz", module.suffix == ".gz"
            unpacked = lzma.LZMAFile(packed) if xz else gzip.GzipFile(fileobj=packed) if gz else packed
            data: bytes = unpacked.read(LARGEST + 1)
    except (lzma.LZMAError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FetchError(f"{module} is truncated or damaged ({error})") from None
    if len(data) > LARGEST:
        raise FetchError(f"{module} holds more than {LARGEST >> 20} MB, so it is no module")
    return data


def plain_name(file: str) -> str:
    """The name of the module in a file, as lsmod(8) shows it."""
    return os.path.basename(file).partition(".")[0].replace("-", "_")


def closure(source: Path, release: str, more: Sequence[str] = ()) -> list[str]:
    """The wanted modules and those named `more`, with all their dependencies."""
    depends = dependencies(source, release)
    queue = [name for name in depends if wanted(name) or plain_name(name) in more]
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
    """Each module's dependencies, from modules.dep; depmod makes it if it is missing or of other files.  Raises FetchError."""
    names = files(source)
    listing = source / "modules.dep"
    found = parse(listing.read_text(errors="replace")) if _is_regular(listing) else {}
    known = set(names)                      # a listing may name any file
    if known <= found.keys() and all(known.issuperset(found[name]) for name in names):
        return {name: found[name] for name in names}
    with GuardedDirectory("kdrift-modules-") as root:
        there = Path(root, "lib/modules", release)
        given = {}                          # by the name that depmod sees
        for name in names:
            place = there / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.suffix == ".gz":       # Debian's depmod cannot read it
                copy(source / name, place)
                given[name.removesuffix(".gz")] = name
            else:
                place.symlink_to((source / name).absolute())
                given[name] = name
        depmod(Path(root), release)
        found = parse((there / "modules.dep").read_text(errors="replace"))
    return {given[name]: [given[need] for need in needs if need in given] for name, needs in found.items() if name in given}


def parse(listing: str) -> dict[str, list[str]]:
    """Parse modules.dep(5)."""
    lines = (line.partition(":") for line in listing.splitlines())
    return {name: needs.split() for name, colon, needs in lines if colon}


def depmod(root: Path, release: str) -> None:
    """Run depmod on the modules below `root`.  Raises FetchError."""
    program = shutil.which("depmod") or shutil.which("depmod", path="/usr/sbin:/sbin")
    if program is None:
        raise FetchError("depmod is not installed (Debian package: kmod)")
    run = subprocess.run(["prlimit", *DEPMOD_LIMITS, program, "-b", str(root), release], capture_output=True, text=True, errors="replace")
    if run.returncode:
        raise FetchError(f"depmod failed on the modules of {release}: {(run.stderr.splitlines() or [f'status {run.returncode}'])[-1]}")
