"""The folders of --bug-report: one for each test that failed, crashed, or has a known issue."""
import errno
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import CacheError, FetchError, SpecError
from kernels.cache import Cache
from kernels.extract import Kernel
from kernels.spec import resolve
from report.results import KernelResult, Run, TestResult
from reproduce import text
from reproduce.collect import CannotExport, Manifest
from reproduce.describe import describe_elsewhere
from reproduce.empty import Visit, visit
from reproduce.evidence import clean, write_evidence
from reproduce.leaks import Private
from reproduce.pack import write
from reproduce.transform import TooNew
from vm.image import ImageError
from vm.qemu import VMError

SUMS = "SHA256SUMS"
REPORTED = ("failed", "crashed", "known")
_TYPE = re.compile(r"(?:\w+\.)*(\w+)(?::|$)")
_NUMBER = re.compile(r"\[Errno (\d+)\]")
_SETUP = re.compile(r"^(#!/bin/sh\n.*?)^-- the end of setup\.sh$", re.MULTILINE | re.DOTALL)


@dataclass
class Settings:
    """The user's choices: the directory, the good kernel's specification ("" for none), and how packages are fetched."""

    directory: Path
    good: str
    offline: bool
    mirror: str | None
    private: Private
    replay: bool = False                    # keep the verifying machine too, to run it again
    allow_unverified: bool = False


def write_folders(settings: Settings, kernels: Sequence[KernelResult], sources: dict[str, Kernel], run: Run,
                  say: Callable[[str], None]) -> None:
    """`sources` are the kernels of machines by label; a test on a running kernel, here or elsewhere, is not run again."""
    wanted = [(test, kernel) for kernel in kernels for test in kernel.tests if test.outcome in REPORTED and "::" in test.id]
    try:
        manifests = describe_elsewhere(sorted({test.id for test, _kernel in wanted})) if wanted else {}
    except CannotExport as error:
        manifests = dict.fromkeys((test.id for test, _kernel in wanted), str(error))
    names: list[str] = []
    for test, kernel in wanted:
        name = folder_name(test.id, kernel.label)
        names.append(name)
        if (count := names.count(name)) > 1:            # labels may differ in punctuation only
            name += f"-{count}"
        directory = settings.directory / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        line = write_folder(directory, test, kernel, manifests.get(test.id, "pytest no longer collects it"), sources.get(kernel.label),
                            kernels, run, settings)
        say(f"{directory}: {line}")


def write_folder(directory: Path, test: TestResult, kernel: KernelResult, manifest: Manifest | str, source: Kernel | None,
                 others: Sequence[KernelResult], run: Run, settings: Settings) -> str:
    """Fill the directory.  Returns the outcome of the verification, in a line."""
    write_evidence(directory, test, kernel, run)
    visits: dict[str, Visit | str] = {}
    no_setup = ""
    why, case = ("", manifest) if isinstance(manifest, Manifest) else (manifest, None)
    if case:
        case.recorded = {"kernel": f"{kernel.package or 'Linux'} {kernel.version or kernel.release}", "outcome": _what(test),
                         "kind": kind_of(test.message), "message": clean((test.message.splitlines() or [""])[0])}
        try:
            write(directory / "repro.pyz", [case])
            with Cache(say=lambda line: None) as cache:
                visits = _visits(cache, directory, case, source, settings)
                no_setup = write_setup(cache, directory, case, source, settings)
        except (TooNew, OSError, CacheError) as error:
            why, case = str(error), None
    for role, each in visits.items():
        if isinstance(each, Visit):
            (directory / f"transcript-{role}.txt").write_text(clean(each.transcript))
    replayed = _replay(directory / "replay")
    (directory / "report.md").write_text(text.report(test, kernel, source, others, case, visits, why, replayed))
    if unfinished := finish(directory, settings.private):
        return unfinished
    found = text.verdict_line(visits) or f"no standalone case: {why}"
    return f"{found}; no setup.sh: {no_setup}" if no_setup else found


def add_text(directory: Path, name: str, words: str, private: Private) -> str:
    """Write one more file into a finished folder.  Returns what must be removed from the folder before it is sent, in a line."""
    (directory / name).write_text(clean(words))
    (directory / SUMS).unlink(missing_ok=True)
    return finish(directory, private)


def finish(directory: Path, private: Private) -> str:
    """Write the checksums; or what must be removed from the folder before it is sent, and return it in a line."""
    if leaks := private.found_in(directory):
        (directory / "NOT-FINISHED").write_text("Remove these before you send the folder:\n" + "\n".join(leaks) + "\n")
        return f"NOT FINISHED: it contains {len(leaks)} names or addresses of this machine, see NOT-FINISHED"
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(directory)}\n" for path in files]
    (directory / SUMS).write_text("".join(sums))
    return ""


def folder_name(test: str, label: str) -> str:
    return plain_folder_name("-".join((*Path(test.partition("::")[0]).with_suffix("").parts[1:],
                                       test.rpartition("::")[2].removeprefix("test_"))), label)


def plain_folder_name(name: str, label: str) -> str:
    """Of a result of this name on the kernel with this label, without what a shell or a file system would take for something else."""
    return re.sub(r"[^\w.]+", "-", f"{name}-on-{label}").strip("-")[:200]


def kind_of(message: str) -> str:
    """The error's type as inside/repro/verdict.py names it, from pytest's message."""
    if message.startswith("assert "):
        return "AssertionError"
    found = _TYPE.match(message)
    name = found[1] if found else ""
    number = _NUMBER.search(message)
    if number:
        return f"{name} {errno.errorcode.get(int(number[1]), number[1])}"
    return name


def _what(test: TestResult) -> str:
    """The outcome to record; a known issue that ended the machine is a crash."""
    return "crashed" if "crashed" in (test.outcome, *test.attempts) else "failed"


def _visits(cache: Cache, directory: Path, manifest: Manifest, source: Kernel | None, settings: Settings) -> dict[str, Visit | str]:
    if source is None:
        return {"failing": "it failed on a running kernel, of which this machine has no image"}
    replay = directory / "replay" if settings.replay else None
    found: dict[str, Visit | str] = {"failing": _visit(cache, directory, manifest, source, settings, replay=replay)}
    if settings.good:
        try:
            good = resolve(settings.good, cache, offline=settings.offline, mirror=settings.mirror,
                           allow_unverified=settings.allow_unverified)
            found["good"] = _visit(cache, directory, manifest, good, settings)
        except (SpecError, FetchError) as error:
            found["good"] = str(error)
    return found


def _visit(cache: Cache, directory: Path, manifest: Manifest, kernel: Kernel, settings: Settings, *words: str,
           replay: Path | None = None) -> Visit | str:
    options = [*(["--disposable"] if text.disposable(manifest) else []), *words]
    try:
        return visit(cache, kernel, (directory / "repro.pyz").read_bytes(), options, manifest.packages, settings.mirror, settings.offline,
                     replay)
    except (VMError, ImageError, FetchError, CacheError, OSError) as error:
        return str(error)


def _replay(directory: Path) -> str:
    """Run the kept machine once more.  Returns the text about it."""
    if not directory.exists():
        return ""
    size = sum(path.stat().st_size for path in directory.iterdir()) >> 20
    done = subprocess.run(["sh", str(directory / "replay.sh")], capture_output=True, text=True)
    for name in ("transcript", "console.log"):
        (directory / name).unlink(missing_ok=True)
    same = "output is identical" if done.returncode == 0 else "output **differed when this was tried**"
    return (f"`sh replay/replay.sh` ({size} MB) replays the verification under the virtual clock; its {same}. "
            "`sh replay/replay.sh gdb` waits for a debugger.")


def write_setup(cache: Cache, directory: Path, manifest: Manifest, source: Kernel | None, settings: Settings) -> str:
    """Record setup.sh in private namespaces; if this kernel lacks something, on an empty machine with `source`.  Returns why not."""
    target = directory / "setup.sh"
    here = subprocess.run([sys.executable, "-I", str(directory / "repro.pyz"), "--setup", str(target)], capture_output=True, text=True,
                          timeout=120)
    if not here.returncode:
        return ""
    if not source:
        return _last_line(here.stdout)
    there = _visit(cache, directory, manifest, source, settings, "--setup", "-")
    if isinstance(there, str):
        return there
    script = _SETUP.search(there.transcript)
    if script is None:
        return _last_line(there.transcript)
    target.write_text(script[1])
    return ""


def _last_line(transcript: str) -> str:
    return (transcript.strip().splitlines() or ["no output"])[-1]
