"""The signatures of a kernel's modules, checked on this machine against the keys in its image.

Source: Documentation/admin-guide/module-signing.rst. A package of modules that no signed index covers is as good as these: the image, which
one covers, has the certificates of the keys that it takes modules from.
"""
import functools
import gzip
import lzma
import os
import re
import shutil
import struct
import subprocess
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common.errors import FetchError
from common.temporary import GuardedDirectory
from kernels.modules import contents, files

MARK = b"~Module signature appended~\n"
LARGEST = 512 << 20                         # bytes of an uncompressed kernel
# The beginning of an X.509 certificate of version 3 (RFC 5280, 4.1): two sequences of at least 256 bytes, and the version.
CERTIFICATE = re.compile(rb"\x30\x82(?P<size>..)\x30\x82..\xa0\x03\x02\x01\x02", re.DOTALL)
SIGNER = re.compile(r"subject=.*?CN ?= ?(?P<name>[^,/\n]+)[^\n]*\nserial=(?P<serial>[0-9A-F]+)")


class Unverified(FetchError):
    """It cannot be shown that the modules are the kernel's; the message says why in a few words."""


def check_modules(image: Path, modules: Path) -> str:
    """Check the signature of every module; returns the names of the keys that have signed them. Raises Unverified."""
    if not (openssl := shutil.which("openssl")):
        raise Unverified("openssl is not installed (Debian package: openssl)")
    if not (names := files(modules)):
        raise Unverified("there are no modules")
    with GuardedDirectory("kdrift-signatures-") as directory:
        trusted = Path(directory, "trusted.pem")
        trusted.write_text(_pem(openssl, _certificates(_uncompressed(image))))
        check = functools.partial(_signer, openssl, trusted, modules)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            signers = sorted(set(pool.map(check, names)))
    found = [SIGNER.search(_run(openssl, "x509", "-noout", "-subject", "-serial", text=signer).decode()) for signer in signers]
    return ", ".join(f"{each['name'].strip()} {each['serial']}" for each in found if each)


def _signer(openssl: str, trusted: Path, modules: Path, name: str) -> str:
    """The certificate, as PEM, of the key that has signed a module. Raises Unverified."""
    data = _zstd((modules / name).read_bytes()) if name.endswith(".zst") else contents(modules / name)
    if not data.endswith(MARK) or len(data) < len(MARK) + 12:
        raise Unverified(f"{name} has no signature")
    end = len(data) - len(MARK) - 12
    (size,) = struct.unpack_from(">I", data, end + 8)       # the last field of struct module_signature
    if not 0 < size < end:
        raise Unverified(f"{name} has a damaged signature")
    with tempfile.TemporaryDirectory(dir=trusted.parent) as directory:
        module, signature, signer = (Path(directory, each) for each in ("module", "signature", "signer"))
        module.write_bytes(data[:end - size])
        signature.write_bytes(data[end - size:end])
        words = ["cms", "-verify", "-binary", "-inform", "DER", "-in", signature, "-content", module, "-certfile", trusted, "-nointern",
                 "-noverify", "-signer", signer, "-out", os.devnull]        # -noverify: the certificate needs no issuer
        if subprocess.run([openssl, *map(str, words)], capture_output=True).returncode:
            raise Unverified(f"{name} is not signed by a key in the kernel's image")
        return signer.read_text()


def _uncompressed(image: Path) -> bytes:
    """The kernel in a bzImage (Documentation/arch/x86/boot.rst, payload_offset). Raises Unverified."""
    data = image.read_bytes()
    start = ((data[0x1F1] or 4) + 1) * 512
    offset, size = struct.unpack_from("<II", data, 0x248)
    payload = data[start + offset:start + offset + size]
    try:
        if payload.startswith(b"\x28\xb5\x2f\xfd"):
            return _zstd(payload[:-4])      # the size follows
        if payload.startswith(b"\xfd7zXZ\0"):
            return lzma.LZMADecompressor().decompress(payload, LARGEST)
        if payload.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(31).decompress(payload, LARGEST)
    except (lzma.LZMAError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise Unverified(f"the kernel's image is damaged: {error}") from None
    raise Unverified("the kernel's image is compressed by neither zstd, xz nor gzip")


def _zstd(data: bytes) -> bytes:
    """Raises Unverified."""
    if not (program := shutil.which("zstd")):
        raise Unverified("zstd is not installed (Debian package: zstd)")
    with tempfile.TemporaryFile() as packed:
        packed.write(data)
        packed.seek(0)
        with subprocess.Popen([program, "-dcq"], stdin=packed, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tool:
            assert tool.stdout
            found = tool.stdout.read(LARGEST + 1)
            if len(found) > LARGEST:
                tool.kill()
    if tool.returncode:
        raise Unverified("what zstd has compressed is damaged or too large")
    return found


def _certificates(kernel: bytes) -> list[bytes]:
    """Raises Unverified."""
    found = [kernel[each.start():each.start() + 4 + int.from_bytes(each["size"])] for each in CERTIFICATE.finditer(kernel)]
    if not found:
        raise Unverified("the kernel's image has no key for modules")
    return found


def _pem(openssl: str, certificates: list[bytes]) -> str:
    return "".join(_run(openssl, "x509", "-inform", "DER", text=each).decode() for each in certificates)


def _run(openssl: str, *words: str, text: bytes | str) -> bytes:
    """What openssl prints; nothing where the bytes are no certificate."""
    return subprocess.run([openssl, *words], input=text.encode() if isinstance(text, str) else text, capture_output=True).stdout
