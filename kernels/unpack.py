"""Unpacks packages, which are not trusted: the regular files of a kernel, and nothing else.

No link is unpacked, so no name in the tree leads out of it. Neither are devices, modes, owners and times. A system's tool decompresses the
package, and Python reads what comes of it piece by piece, so that a small package cannot fill the disk or the memory.
"""
import contextlib
import errno
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from common.errors import FetchError, SpecError
from kernels.extract import image_release
from kernels.modules import depmod

LARGEST = 4 << 30                           # bytes of a package's contents
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)      # a disk's error, not a package's
MOST = 200_000                              # files and directories in it
LONGEST_HEADER = 1 << 20                    # bytes of one extended header, which is read as a whole
LONGEST_CONTROL = 1 << 16                   # bytes of a .deb's control file
WANTED = re.compile(r"(?:usr/)?(boot/(?:vmlinu[xz]|config-)[^/]*|lib/modules/[^/]+/.+)")
MODULES = re.compile(r"(?:usr/)?(lib/modules/[^/]+/(?:kernel/.+\.ko(?:\.(?:xz|gz|zst))?|modules\.[^/]+))")
# depmod makes these anew: what a package says of its modules may name any file.
LISTINGS = re.compile(r"lib/modules/[^/]+/modules\.(?!(?:builtin|builtin\.modinfo|order)$)[^/]*")
NAME = re.compile(r"[a-z0-9][a-z0-9.+-]+")  # deb-control(5)
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:~-]*")


class TooLarge(Exception):
    """The package holds more than a kernel's does."""


class Header(tarfile.TarInfo):
    """A member's header that takes no more memory than a header needs."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "Header":
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or not (header.isfile() or header.size <= LONGEST_HEADER):
            raise tarfile.ReadError("a header has an impossible size")
        return header


class Limited:
    """A stream that raises TooLarge after LARGEST bytes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.left = stream, LARGEST

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise TooLarge(f"more than {LARGEST >> 30} GB of contents")
        return data


def unpack(package: Path, root: Path, wanted: re.Pattern[str] = WANTED) -> None:
    """Unpack the kernel in a .deb or .rpm below `root`, or only what is `wanted`; /usr/lib/modules becomes lib/modules.

    Raises FetchError if it is damaged or larger than a kernel, has names that lead out, or a tool is missing.
    """
    line = (["bsdtar", "-cf", "-", "--format=pax", "@-"], "libarchive-tools") if package.suffix == ".rpm" else (
        ["dpkg-deb", "--fsys-tarfile", str(package)], "dpkg")
    with _members(package, *line) as members:
        for number, member in enumerate(members):
            if number == MOST:
                raise TooLarge(f"more than {MOST} names")
            if place := _place(member.name, package, wanted):
                _take(members, member, root, place)


def find_image(root: Path) -> Path:
    """The image that was unpacked there. Raises SpecError if there is none."""
    images = [path for pattern in ("lib/modules/*/vmlinuz*", "boot/vmlinu[xz]*") for path in sorted(root.glob(pattern))]
    image = next((path for path in images if path.is_file()), None)
    if image is None:
        raise SpecError("no kernel image in the package")
    return image


def settle(root: Path) -> tuple[Path, Path | None, str]:
    """Find what was unpacked and have depmod list the modules.

    Returns image, modules directory (None: the kernel has none) and release. Raises SpecError if there is no image, FetchError.
    """
    image = find_image(root)
    release = image_release(image)
    modules = root / "lib/modules" / release
    if not (modules / "kernel").is_dir():
        return image, None, release
    depmod(root, release)
    return image, modules, release


def deb_fields(package: Path) -> dict[str, str]:
    """Package, Version and Architecture of a .deb. Raises FetchError if it is truncated or no .deb."""
    control = b""
    with _members(package, ["dpkg-deb", "--ctrl-tarfile", str(package)], "dpkg") as members:
        for member in members:
            if member.isreg() and member.name in ("control", "./control") and (file := members.extractfile(member)):
                control = file.read(LONGEST_CONTROL)
    fields = dict(re.findall(r"(?m)^(Package|Version|Architecture): *(.*?)\s*$", control.decode(errors="replace")))
    for name, form in (("Package", NAME), ("Version", VERSION)):
        if not form.fullmatch(fields.get(name, "")):
            raise FetchError(f"{package.name} is truncated or damaged (its control file has no valid {name})")
    return fields


def _place(name: str, package: Path, pattern: re.Pattern[str]) -> str | None:
    """Where a member belongs below the root; None if a kernel does not need it. Raises FetchError."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or not name.isprintable():
        raise FetchError(f"{package.name} is no kernel package: it has a file {ascii(name[:100])}")
    wanted = pattern.fullmatch("/".join(parts))
    return wanted[1] if wanted and not LISTINGS.fullmatch(wanted[1]) else None


def _take(members: tarfile.TarFile, member: tarfile.TarInfo, root: Path, place: str) -> None:
    """Write a member that is a regular file, or another name of one that is already there. Raises tarfile.ReadError."""
    target = root / place
    if member.issparse():
        raise tarfile.ReadError("a file has holes")
    if member.isreg() and (source := members.extractfile(member)):
        target.parent.mkdir(parents=True, exist_ok=True)
        with source, target.open("xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
    elif member.islnk():
        other = WANTED.fullmatch("/".join(part for part in member.linkname.split("/") if part not in ("", ".", "..")))
        if other and (root / other[1]).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(root / other[1], target)


@contextlib.contextmanager
def _members(package: Path, line: Sequence[str], needs: str) -> Iterator[tarfile.TarFile]:
    """The members of a package, to be read in turn, as a tool writes them. Raises FetchError."""
    program = shutil.which(line[0])
    if not program:
        raise FetchError(f"{line[0]} is not installed (Debian package: {needs})")
    with tempfile.TemporaryFile() as complaints, package.open("rb") as source:
        tool = subprocess.Popen([program, *line[1:]], stdin=source, stdout=subprocess.PIPE, stderr=complaints,
                                env={**os.environ, "LC_ALL": "C.UTF-8"})
        assert tool.stdout
        error = None
        try:
            stream = Limited(tool.stdout)
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=Header, errors="surrogateescape") as members:  # type: ignore[call-overload]
                yield members
            while stream.read(1 << 20):     # what follows the archive's end
                pass
        except TooLarge as large:
            tool.kill()
            raise FetchError(f"{package.name} is no kernel package: it holds {large}") from None
        except (tarfile.TarError, ValueError, ArithmeticError, LookupError, EOFError, RecursionError) as wrong:
            error = str(wrong) or type(wrong).__name__
        except OSError as wrong:            # a name twice, one that is too long, a file where a directory must be
            if wrong.errno in FULL:
                raise
            error = wrong.strerror
        finally:
            tool.stdout.close()
            if error:
                tool.terminate()
            tool.wait()
        complaints.seek(0)
        words = complaints.read(10_000).decode(errors="replace").strip().splitlines()
        if error or tool.returncode:
            reason = words[0] if words else error or f"status {tool.returncode}"
            raise FetchError(f"{package.name} is truncated or damaged ({reason})")
