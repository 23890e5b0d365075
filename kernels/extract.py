"""Unpacked packages and kernel files: where the image and the modules are, and what uname -r will say."""

import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import FetchError, NoSpaceError, SpecError

DOCUMENTATION = ("usr/share", "etc", "boot/System.map*")


@dataclass(frozen=True)
class Kernel:
    """A kernel on this machine.

    `modules` is .../lib/modules/RELEASE, None for a kernel with everything built in. `key` identifies the contents: equal
    keys mean identical bytes. With `check_modules` the kernel must refuse modules without a valid signature, because only
    the signature proves that they are its own. `build` tells builds of one release apart, whatever their paths; empty if
    unknown.
    """

    spec: str
    release: str
    package: str | None
    version: str | None
    vmlinuz: Path
    modules: Path | None
    key: str
    check_modules: bool = False
    build: str = ""


def unpack(package: Path, root: Path) -> None:
    """Unpack a .deb or .rpm below `root`. Raises FetchError if it is damaged, a tool is missing or the disk is full."""
    if package.suffix == ".rpm":
        _pipe_rpm(package, root)
    else:
        _check(_run(["dpkg-deb", "-x", str(package), str(root)], "dpkg"), package)


def settle(root: Path) -> tuple[Path, Path | None, str]:
    """Tidy an unpacked kernel: modules below lib/modules with modules.dep, documentation removed.

    Returns image, modules directory (None: the kernel has none) and release. Raises SpecError if there is no image.
    """
    for pattern in DOCUMENTATION:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    merged, plain = root / "usr/lib/modules", root / "lib/modules"
    if merged.is_dir() and not plain.exists():
        plain.parent.mkdir(exist_ok=True)
        merged.rename(plain)
    images = [path for pattern in ("lib/modules/*/vmlinuz*", "boot/vmlinu[xz]*") for path in sorted(root.glob(pattern))]
    image = next((path for path in images if path.is_file()), None)
    if image is None:
        raise SpecError("no kernel image in the package")
    release = image_release(image)
    modules = plain / release if (plain / release / "kernel").is_dir() else None
    if modules and not (modules / "modules.dep").exists():
        _check(_run(["depmod", "-b", str(root), release], "kmod"), modules)
    return image, modules, release


def image_release(image: Path) -> str:
    """The release of a bzImage.  Raises SpecError if the file is no x86 bzImage or is truncated."""
    release = _image_version(image).split()[0]
    if not re.fullmatch(r"\w[\w.+~-]*", release):          # becomes a directory name
        raise SpecError(f"{image}: invalid kernel release {release!r}")
    return release


def packaged_version(image: Path) -> str | None:
    """The package version that Debian's builds record in a bzImage, None in others; the release says little of it."""
    found = re.search(r" Debian (\S+)", _image_version(image))
    return found[1] if found else None


def _image_version(image: Path) -> str:
    """The version string in the header of a bzImage (Documentation/arch/x86/boot.rst, kernel_version).  Raises SpecError."""
    with image.open("rb") as file:
        header = file.read(0x10000)
    if header[0x202:0x206] != b"HdrS" or len(header) < 0x264:
        raise SpecError(f"{image} is not an x86 kernel image (bzImage); in a build tree it is arch/x86/boot/bzImage")
    offset = struct.unpack_from("<H", header, 0x20E)[0] + 0x200
    words = header[offset:offset + 256].split(b"\0")[0]
    setup_sectors = header[0x1F1] or 4
    protected_mode = struct.unpack_from("<I", header, 0x1F4)[0] * 16
    if not words.strip() or image.stat().st_size < (setup_sectors + 1) * 512 + protected_mode - 15:
        raise SpecError(f"{image} is truncated: the file is shorter than its header says")
    return words.decode(errors="replace")


def deb_fields(package: Path) -> dict[str, str]:
    """Package and Version of a .deb. Raises FetchError if it is truncated or no .deb."""
    result = _run(["dpkg-deb", "-f", str(package), "Package", "Version"], "dpkg")
    _check(result, package)
    return dict(line.split(": ", 1) for line in result.stdout.decode().splitlines() if ": " in line)


def _pipe_rpm(package: Path, root: Path) -> None:
    if shutil.which("bsdtar"):
        _check(_run(["bsdtar", "-xf", str(package), "-C", str(root)], "libarchive-tools"), package)
        return
    archive = _run(["rpm2cpio", str(package)], "rpm2cpio")
    _check(archive, package)
    _check(_run(["cpio", "-idm", "--quiet", "--no-absolute-filenames"], "cpio", archive.stdout, root), package)


def _run(line: Sequence[str], needs: str, text: bytes | None = None, directory: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which(line[0]) or shutil.which(line[0], path="/usr/sbin:/sbin")
    if not program:
        raise FetchError(f"{line[0]} is not installed (Debian package: {needs})")
    return subprocess.run([program, *line[1:]], input=text, cwd=directory, capture_output=True)


def _check(result: subprocess.CompletedProcess[bytes], what: Path) -> None:
    if result.returncode == 0:
        return
    words = result.stderr.decode(errors="replace").strip().splitlines()
    if "No space left" in " ".join(words):
        raise NoSpaceError(f"no space left on device while unpacking {what.name}: free some space, for example with "
                           "`./kdrift kernels --prune`, or set KDRIFT_CACHE to another directory")
    reason = words[0] if words else f"status {result.returncode}"
    raise FetchError(f"{what.name} is truncated or damaged ({reason})")
