"""The signatures of a kernel's modules, checked on this machine against the keys in its image.

Source: Documentation/admin-guide/module-signing.rst. A package of modules that no signed index covers is as good as these: the image, which
one covers, has the certificates of the keys that it takes modules from.
"""
import functools
import os
import re
import shutil
import struct
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common.errors import FetchError
from common.temporary import GuardedDirectory
from kernels.compressed import BadCompression, uncompressed, zstd
from kernels.modules import contents, files

MARK = b"~Module signature appended~\n"
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
        trusted.write_text(_pem(openssl, _certificates(_kernel(image))))
        check = functools.partial(_signer, openssl, trusted, modules)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            signers = sorted(set(pool.map(check, names)))
    found = [SIGNER.search(_run(openssl, "x509", "-noout", "-subject", "-serial", text=signer).decode()) for signer in signers]
    return ", ".join(f"{each['name'].strip()} {each['serial']}" for each in found if each)


def _signer(openssl: str, trusted: Path, modules: Path, name: str) -> str:
    """The certificate, as PEM, of the key that has signed a module. Raises Unverified."""
    try:
        data = zstd((modules / name).read_bytes()) if name.endswith(".zst") else contents(modules / name)
    except BadCompression as error:
        raise Unverified(str(error)) from None
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


def _kernel(image: Path) -> bytes:
    """Raises Unverified."""
    try:
        return uncompressed(image)
    except BadCompression as error:
        raise Unverified(str(error)) from None


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
