"""The kernel inside of a bzImage, and what other programs have compressed."""
import lzma
import shutil
import struct
import subprocess
import tempfile
import zlib
from pathlib import Path

from common.errors import FetchError

LARGEST = 512 << 20                         # bytes of an uncompressed kernel


class BadCompression(FetchError):
    """It cannot be decompressed; the message says why in a few words."""


def uncompressed(image: Path) -> bytes:
    """The kernel in a bzImage, an ELF file (Documentation/arch/x86/boot.rst, payload_offset).  Raises BadCompression."""
    data = image.read_bytes()
    start = ((data[0x1F1] or 4) + 1) * 512
    offset, size = struct.unpack_from("<II", data, 0x248)
    payload = data[start + offset:start + offset + size]
    try:
        if payload.startswith(b"\x28\xb5\x2f\xfd"):
            return zstd(payload[:-4])       # the size follows
        if payload.startswith(b"\x02\x21\x4c\x18"):
            return _by_program("lz4", payload[:-4])
        if payload.startswith(b"\xfd7zXZ\0"):
            return lzma.LZMADecompressor().decompress(payload, LARGEST)
        if payload.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(31).decompress(payload, LARGEST)
    except (lzma.LZMAError, zlib.error, EOFError) as error:
        raise BadCompression(f"the kernel's image is damaged: {error}") from None
    raise BadCompression("the kernel's image is compressed by neither zstd, lz4, xz nor gzip")


def zstd(data: bytes) -> bytes:
    """The decompressed data.  Raises BadCompression."""
    return _by_program("zstd", data)


def _by_program(name: str, data: bytes) -> bytes:
    """Decompressed by a program of that name, which is also that of Debian's package."""
    if not (program := shutil.which(name)):
        raise BadCompression(f"{name} is not installed (Debian package: {name})")
    with tempfile.TemporaryFile() as packed:
        packed.write(data)
        packed.seek(0)
        with subprocess.Popen([program, "-dcq"], stdin=packed, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tool:
            assert tool.stdout
            found = tool.stdout.read(LARGEST + 1)
            if len(found) > LARGEST:
                tool.kill()
    if tool.returncode:
        raise BadCompression(f"what {name} has compressed is damaged or too large")
    return found
