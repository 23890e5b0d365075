"""Packages as no packager makes them: any member, under any name."""
import io
import struct
import tarfile
from collections.abc import Iterable
from pathlib import Path

from tests.harness.debian_archive import write_image

RELEASE = "6.12.0-kdrift-test"
IMAGE = f"boot/vmlinuz-{RELEASE}"
MODULES = f"lib/modules/{RELEASE}"
CONTROL = f"Package: linux-image-{RELEASE}\nVersion: 6.12.0-1\nArchitecture: amd64\n"
_CPIO_KINDS = {tarfile.REGTYPE: 0o100000, tarfile.SYMTYPE: 0o120000, tarfile.DIRTYPE: 0o040000, tarfile.CHRTYPE: 0o020000,
               tarfile.LNKTYPE: 0o100000}
Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, to: str = "", mode: int = 0o644, **pax: str) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode, info.pax_headers = kind, to, len(data), mode, pax
    return info, data


def link(name: str, to: str | Path) -> Member:
    return member(name, kind=tarfile.SYMTYPE, to=str(to))


def kernel(scratch: Path) -> list[Member]:
    """What a kernel's package needs: the image, and a directory of modules."""
    image = write_image(scratch / "image", RELEASE).read_bytes()
    return [member(IMAGE, image), member(f"{MODULES}/kernel/net/readme", b"no module\n"), member(f"{MODULES}/modules.order"),
            member(f"{MODULES}/modules.builtin")]


def tar(members: Iterable[Member]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def deb(path: Path, data: bytes, control: bytes = CONTROL.encode(), compression: str = "") -> Path:
    """A .deb whose contents are `data`, a tar archive, compressed or not (deb(5))."""
    files = {"debian-binary": b"2.0\n", "control.tar": tar([member("./control", control)]), f"data.tar{compression}": data}
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, contents in files.items():
            file.write(f"{name:16}{0:<12}{0:<6}{0:<6}{'100644':8}{len(contents):<10}`\n".encode())
            file.write(contents + b"\n" * (len(contents) % 2))
    return path


def rpm(path: Path, members: Iterable[Member]) -> Path:
    """An .rpm: a lead, two empty headers, and a cpio archive."""
    header = b"\x8e\xad\xe8\x01" + bytes(12)
    with path.open("wb") as file:
        file.write(b"\xed\xab\xee\xdb\x03\0" + bytes(90) + header + header)
        for number, (info, data) in enumerate([*members, member("TRAILER!!!")], 1):
            data = info.linkname.encode() if info.issym() else data
            name = info.name.encode(errors="surrogateescape") + b"\0"
            mode = _CPIO_KINDS[info.type] | info.mode
            fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
            file.write(b"070701" + b"".join(b"%08X" % field for field in fields) + name + bytes(-(110 + len(name)) % 4))
            file.write(data + bytes(-len(data) % 4))
    return path


def endless_header() -> bytes:
    """The beginning of a tar archive: an extended header of 8 GB."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 8 << 30
    return info.tobuf(tarfile.GNU_FORMAT)


def holes(name: str) -> Member:
    """A file of 1 TB without data."""
    return member(name, struct.pack("512s", b"1\n0\n0\n"), **{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name,
                                                             "GNU.sparse.realsize": str(1 << 40)})
