"""A portable Python in one archive: this machine's interpreter with its libraries, and what the suite imports.

It runs in any directory of an x86-64 Linux machine, with its own dynamic linker and C library. So the tests' Python is the same
everywhere; the tools that they use are the machine's own.
"""
import io
import os
import sys
import sysconfig
import tarfile
from pathlib import Path

from common.project import PROJECT
from kernels.cache import Cache
from vm.image import SITE_LEFT_OUT, STDLIB_LEFT_OUT, is_elf, libraries, tree, userland_key

LINKER = "ld-linux-x86-64.so.2"
PYTHON = f"""\
#!/bin/sh
here=${{0%/*}}
exec "$here/lib/{LINKER}" --library-path "$here/lib" --argv0 "$here/python" "$here/bin/python" "$@"
"""


def python_bundle(cache: Cache) -> Path:
    """The archive: `python`, bin, lib, and site for its module path.  Raises ImageError."""
    entry = cache.build("images", f"python-{userland_key()}", _build, {"group": f"python {sys.prefix}"})
    return entry / "python.tar.gz"


def pack_machinery() -> bytes:
    """The modules that run a guest or a worker on another machine."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        # A launcher checks an oops as the tests do.
        for pattern in ("common/*.py", "kernels/*.py", "vm/*.py", "session/*.py", "hosts/*.py", "fixtures/__init__.py", "fixtures/oops.py",
                        "fixtures/machine.py"):
            for path in sorted(PROJECT.glob(pattern)):
                tar.add(path, str(path.relative_to(PROJECT)))
    return archive.getvalue()


def _build(target: Path) -> None:
    stdlib = sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix})
    site = sysconfig.get_path("purelib")
    interpreter = os.path.realpath(sys.executable)
    modules = tree(stdlib, STDLIB_LEFT_OUT)
    with tarfile.open(target / "python.tar.gz", "w:gz", compresslevel=6, dereference=True) as tar:
        launcher = tarfile.TarInfo("python")
        launcher.size, launcher.mode = len(PYTHON), 0o755
        tar.addfile(launcher, io.BytesIO(PYTHON.encode()))
        tar.add(interpreter, "bin/python")
        for path in libraries([interpreter, *filter(is_elf, modules)]):
            tar.add(path, f"lib/{os.path.basename(path)}")
        for path in modules:
            tar.add(path, f"lib/{os.path.basename(stdlib)}/{os.path.relpath(path, stdlib)}")
        for path in tree(site, SITE_LEFT_OUT - {"qemu"}):
            tar.add(path, f"site/{os.path.relpath(path, site)}")
