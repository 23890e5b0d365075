"""What is known of a kernel on this machine, and what the header of its image says."""

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from common.errors import SpecError


@dataclass(frozen=True)
class Kernel:
    """A kernel on this machine.

    `modules` is .../lib/modules/RELEASE, None for a kernel with everything built in. `key` identifies the contents: equal
    keys mean identical bytes. With `check_modules` the kernel must refuse modules without a valid signature, because only
    the signature proves that they are its own. `build` tells builds of one release apart, whatever their paths; empty if
    unknown. `verified` says by which key its files were verified; empty if by none.
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
    verified: str = ""


def image_release(image: Path) -> str:
    """The release of a bzImage.  Raises SpecError if the file is no x86 bzImage or is truncated."""
    release = _image_version(image).split()[0]
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+~-]{0,63}", release):        # becomes a directory name; uname(2)
        raise SpecError(f"{image}: invalid kernel release {release[:80]!r}")
    return release


def packaged_version(image: Path) -> str | None:
    """The package version that Debian's builds record in a bzImage, None in others; the release says little of it."""
    found = re.search(r" Debian ([A-Za-z0-9.+:~-]+)", _image_version(image))
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
