"""An empty machine: a kernel, and the Debian packages that a case needs. Of kdrift it has little but the case's file."""
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import FetchError
from fixtures.oops import PANIC, impossible
from kernels.cache import Cache
from kernels.debian import Archive
from kernels.extract import Kernel
from kernels.progress import Reporter
from vm.image import BESIDE, cpio, join, stage_modules
from vm.machine import COMMAND_LINE, Machine
from vm.qemu import qemu_version
from vm.state import console_end

# Always installed: what every case needs, a shell, and what loads modules.
BASE = ("python3", "iproute2", "kmod", "dash")
LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/perl5", "usr/share/zoneinfo")
DEADLINE = 900                              # seconds (vm.patience) for one run, under emulation
INIT = Path(__file__).with_name("empty_init.py")
REPLAY = """\
#!/bin/sh
# Replays the machine instruction by instruction, with QEMU {version}; another version may differ.
#     sh replay.sh           runs it and compares the output
#     sh replay.sh gdb       waits for a debugger: gdb -ex 'target remote :1234' vmlinux
cd "$(dirname "$0")"
[ "$1" = gdb ] && set -- -S -gdb tcp:127.0.0.1:1234
{command} "$@"
cmp transcript transcript.expected && echo "identical output"
"""
_SUITES = (("5.10.", "bullseye"), ("6.1.", "bookworm"))


class Empty(Machine):
    """A machine with two serial ports, for the kernel's console and the case's output, and no other way in or out.

    Nothing of the host reaches it. So under the virtual clock it executes the same instructions each time.
    """

    @property
    def transcript(self) -> Path:
        return self.directory / "transcript"

    def ports(self) -> list[str]:
        return ["-serial", f"file:{self.console}", "-serial", f"file:{self.transcript}"]

    def inputs(self) -> list[str]:
        return []

    def connect(self) -> None:
        """There is no channel to connect."""

    def command(self) -> list[str]:
        """QEMU's command line for a directory that holds vmlinuz and initrd."""
        return ["qemu-system-x86_64", *self.arguments(), *self.recorded(), "-serial", "file:console.log", "-serial", "file:transcript",
                "-object", self.memory_backend(), "-kernel", "vmlinuz", "-initrd", "initrd",
                "-append", " ".join([*COMMAND_LINE, *self.parameters])]


@dataclass(frozen=True)
class Visit:
    """What a case did on an empty machine: REPRODUCED, NOT REPRODUCED, CANNOT RUN, or "" if it did not end."""

    verdict: str
    transcript: str
    suite: str


def suite_of(kernel: Kernel) -> str:
    """The Debian release that the kernel belongs to; for other kernels, a stable release."""
    version = kernel.version or kernel.release
    if backport := re.search(r"bpo(\d+)", version):
        return {"11": "bullseye", "12": "bookworm"}.get(backport[1], "trixie")
    return next((suite for start, suite in _SUITES if version.startswith(start)), "trixie" if kernel.version else "bookworm")


def visit(cache: Cache, kernel: Kernel, case: bytes, options: Sequence[str] = (), packages: Sequence[str] = (), mirror: str | None = None,
          offline: bool = False, replay: Path | None = None) -> Visit:
    """Run a case's file on an empty machine with this kernel. The directory `replay` gets all that QEMU needs to do it again.

    Raises VMError, ImageError, FetchError, CacheError.
    """
    suite = suite_of(kernel)
    userland = _userland(cache, suite, sorted({*BASE, *packages}), mirror, offline)
    with tempfile.TemporaryDirectory(prefix="kdrift-") as name:
        directory = Path(name)
        _build(directory, kernel, userland, case, options)
        parameters = [*(["module.sig_enforce=1"] if kernel.check_modules else []), "rdinit=/init"]
        with Empty(kernel.vmlinuz, directory / "initrd", parameters, directory, "virtual", "tcg") as machine:
            machine.start()
            ended = machine.wait(DEADLINE)
            end = "the machine ended without a verdict" if ended else f"no verdict within {DEADLINE} s"
            text = machine.transcript.read_text(errors="replace").replace("\r", "")
            words, console = console_end(machine), machine.console_tail(400)
            if replay:
                _keep(machine, replay)
    if impossible(console):
        lines = [text.rstrip(), "CANNOT RUN: emulator error, impossible registers:", *words]
        return Visit("CANNOT RUN", "\n".join(lines), suite)
    if any(PANIC.search(line) for line in words):
        return Visit("REPRODUCED", "\n".join([text.rstrip(), "the kernel panicked; the end of the console:", *words]), suite)
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    found = re.match(r"REPRODUCED|NOT REPRODUCED|CANNOT RUN", last)
    return Visit(found[0] if found else "", text if found else "\n".join([text, f"{end}; the console:", *words]), suite)


def _keep(machine: Empty, target: Path) -> None:
    """Keep replay.sh, its inputs, and its expected output."""
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(machine.vmlinuz, target / "vmlinuz")
    shutil.copy(machine.initrd, target / "initrd")
    shutil.copy(machine.transcript, target / "transcript.expected")
    (target / "replay.sh").write_text(REPLAY.format(command=shlex.join(machine.command()), version=qemu_version()))


def _userland(cache: Cache, suite: str, packages: list[str], mirror: str | None, offline: bool) -> Path:
    """`userland.cpio` of these packages and their dependencies."""
    archive = Archive(cache, offline=offline, progress=Reporter(), mirror=mirror)

    def build(target: Path) -> None:
        root = target / "root"
        for name in ("bin", "sbin", "lib", "lib64"):
            (root / "usr" / name).mkdir(parents=True)
            (root / name).symlink_to(f"usr/{name}")
        with tempfile.TemporaryDirectory(dir=archive.root) as downloads:
            for deb in archive.fetch_userland(packages, suite, Path(downloads)):
                _unpack(deb, root)
        for name in LEFT_OUT:
            shutil.rmtree(root / name, ignore_errors=True)
        for name in ("proc", "sys", "dev", "run", "tmp", "root"):
            (root / name).mkdir(exist_ok=True)
        (root / "etc").mkdir(exist_ok=True)
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        shutil.copy(INIT, root / "init")
        (root / "init").chmod(0o755)
        _pack(target / "userland.cpio", root)
        shutil.rmtree(root)

    key = f"stranger-{suite}-{'-'.join(packages)}-{INIT.stat().st_size}"
    return cache.build("images", key, build, {"group": f"stranger {suite} {packages}"}) / "userland.cpio"


def _unpack(deb: Path, root: Path) -> None:
    """Unpack without the package's scripts; directories that are symlinks here stay so."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as source:
        done = subprocess.run(["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root)], stdin=source.stdout,
                              capture_output=True, text=True)
    if done.returncode or source.returncode:
        raise FetchError(f"cannot unpack {deb.name}: {done.stderr.strip()}")


def _build(directory: Path, kernel: Kernel, userland: Path, case: bytes, options: Sequence[str]) -> None:
    """`initrd`: the userland, then the kernel's modules and the case."""
    stage = directory / "stage"
    stage_modules(stage, kernel)
    (stage / "root").mkdir(parents=True)
    (stage / "root/repro.pyz").write_bytes(case)
    shutil.copy(BESIDE["kdrift_processor.py"], stage / "root/processor.py")
    (stage / "root/options").write_text("\n".join(options))
    _pack(directory / "own.cpio", stage)
    join(directory / "initrd", userland, directory / "own.cpio")
    shutil.rmtree(stage)


def _pack(target: Path, top: Path) -> None:
    cpio(target, top, sorted(str(path.relative_to(top)) for path in top.rglob("*")))
