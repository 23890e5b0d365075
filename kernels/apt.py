"""apt without root, with its own state: apt verifies signatures and hashes, and the host's state stays untouched.

The host's proxy and authentication settings apply; only directories, hooks and the checks are set here.
"""

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from common.errors import AbsentError, FetchError
from kernels.sources import Source

ANSWER_WITHIN = 20.0  # seconds without progress until a mirror counts as not answering
DEADLINE_OPTIONS = ("Acquire::http::Timeout=10", "Acquire::https::Timeout=10", "Acquire::Retries=1")

CONFIGURATION = """\
Dir::State "{root}/state";
Dir::State::lists "{root}/lists";
Dir::State::status "/dev/null";
Dir::Cache "{root}/cache";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{root}/sources";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "amd64";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::PDiffs "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::GzipIndexes "true";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
APT::Get::AllowUnauthenticated "false";
// The host's hooks tend to its own package cache.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


class Apt:
    """apt with its state below `root`; `sources` maps each suite to its source."""

    def __init__(self, root: Path, sources: dict[str, Source]):
        self.root, self.sources = root, sources

    @property
    def origin(self) -> str:
        """Identifies the sources: package lists of one origin are useless with another."""
        stanzas = "".join(source.stanza(suite) for suite, source in sorted(self.sources.items()))
        return hashlib.sha256(stanzas.encode()).hexdigest()[:16]

    def update(self, advance: Callable[[int], None] = lambda done: None) -> dict[str, str]:
        """Fetch the package lists of all suites; returns the failed suites with the reasons.

        `advance` gets the bytes on disk. Raises FetchError if the mirror does not answer or every suite failed.
        """
        self._configure()
        lists = self.root / "lists"
        # Without apt's package cache, which is of no use here and takes seconds.
        output = self._run(["update"], lambda: _size(lists), advance, "the package lists",
                           ["pkgCacheFile::Generate=false"])
        failed = {}
        for suite in self.sources:
            came = re.search(rf"(?m)^(Hit|Get):.* {re.escape(suite)} (In)?Release", output)
            # "Err:2 ADDRESS SUITE Release", with the reason on the next line. The summary at the end reports an unreachable
            # network as a missing suite.
            error = re.search(rf"(?m)^Err:.* {re.escape(suite)}[ /].*\n\s+(.+)$", output)
            if not came or suite not in self.lists() or error:
                failed[suite] = error[1] if error else _first_error(output, f" {suite} ", f"/{suite}/") or "no response"
        if len(failed) == len(self.sources):
            reason = next((reason for reason in failed.values() if not is_absence(reason)), "the mirror has none of the suites")
            raise FetchError(f"cannot fetch any package list ({reason}): check the network or the proxy, or choose "
                             "another mirror with --mirror")
        return failed

    def lists(self) -> dict[str, Path]:
        """The package lists that `update` fetched, by suite."""
        found = {}
        for path in sorted((self.root / "lists").glob("*_dists_*_main_binary-amd64_Packages*")):
            if suite := re.search(r"_dists_([^_]+)_main_", path.name):
                found[suite[1]] = path
        return found

    def read_list(self, path: Path) -> bytes:
        """The text of a package list. Raises FetchError if apt cannot read it."""
        reader = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", str(path)], capture_output=True)
        if reader.returncode:
            raise FetchError(f"package list {path.name} is damaged: remove it with `./kdrift kernels --prune`")
        return reader.stdout

    def download(self, package: str, version: str, suite: str, directory: Path, size: int,
                 advance: Callable[[int], None] = lambda done: None) -> Path:
        """Fetch one package of `size` bytes into `directory`, resuming an interrupted download.

        Raises FetchError if the mirror does not answer or lacks it (AbsentError), or apt's verification fails.
        """
        self._configure()
        # Reading one suite's list takes a tenth of the time of all.
        options = [f"Dir::Etc::sourcelist={self.root}/sources/{suite}.sources", "Dir::Etc::sourceparts=/dev/null"]
        output = self._run(["download", f"{package}={version}"], lambda: _size(directory), advance,
                           package, options, directory)
        debs = [path for path in directory.glob(f"{package}_*.deb") if path.stat().st_size == size]
        if not debs:
            reason = _first_error(output, "") or "the package is truncated"
            kind = AbsentError if re.search(r" 404\b|File not found", reason) else FetchError
            raise kind(f"cannot download {package} {version}: {reason}")
        return debs[0]

    def download_with_dependencies(self, packages: Sequence[str], suite: str, directory: Path,
                                   advance: Callable[[int], None] = lambda done: None) -> list[Path]:
        """Fetch packages with all their dependencies, as for a machine on which nothing is installed.

        Raises FetchError if the mirror does not answer or a package is unavailable.
        """
        self._configure()
        (directory / "partial").mkdir(parents=True, exist_ok=True)
        options = [f"Dir::Etc::sourcelist={self.root}/sources/{suite}.sources", "Dir::Etc::sourceparts=/dev/null",
                   f"Dir::Cache::archives={directory}", "Debug::NoLocking=true", "APT::Install-Recommends=false"]
        output = self._run(["install", "--yes", "--download-only", *packages], lambda: _size(directory), advance,
                           f"packages of {suite}", options)
        debs = sorted(directory.glob("*.deb"))
        if (error := _first_error(output, "")) or not debs:
            raise FetchError(f"cannot download {', '.join(packages)} of {suite}: {error or 'apt fetched nothing'}")
        return debs

    def download_from_pool(self, path: str, suite: str, directory: Path,
                           advance: Callable[[int], None] = lambda done: None) -> Path:
        """Fetch a file of the archive that no index lists. Raises FetchError if it is missing or the mirror does not answer."""
        self._configure()
        deb = directory / path.rpartition("/")[2]
        output = self._run(["download-file", f"{self.sources[suite].uris[0].rstrip('/')}/{path}", str(deb)], lambda: _size(directory),
                           advance, deb.name, program="/usr/lib/apt/apt-helper")
        if not deb.exists():
            raise FetchError(f"cannot download {deb.name}: {_first_error(output, '') or 'it is no longer in the archive'}")
        return deb

    def _configure(self) -> None:
        for name in ("state", "lists/partial", "cache/archives/partial", "sources"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        _write(self.root / "apt.conf", CONFIGURATION.format(root=self.root))
        for suite, source in self.sources.items():
            _write(self.root / "sources" / f"{suite}.sources", source.stanza(suite))

    def _run(self, command: list[str], measure: Callable[[], int], advance: Callable[[int], None], what: str,
             options: Sequence[str] = (), directory: Path | None = None, program: str = "apt-get") -> str:
        line = [program, "-c", str(self.root / "apt.conf")]
        for option in (*DEADLINE_OPTIONS, *options):
            line += ["-o", option]
        with _child([*line, *command], directory) as (process, status):
            output = b""
            seen, since = None, time.monotonic()
            while process.poll() is None:
                time.sleep(0.1)
                output += status()
                state = (measure(), len(re.findall(rb"(?m)^(?:Hit|Get|Reading)", output)))
                if state != seen:
                    seen, since = state, time.monotonic()
                    advance(state[0])
                if time.monotonic() - since > ANSWER_WITHIN:
                    raise FetchError(f"{what}: the mirror does not respond (no data for {ANSWER_WITHIN:.0f} s): "
                                     "check the network or the proxy, or choose another mirror with --mirror")
            output += status()
        if b"No space left" in output:
            raise FetchError("no space left on device: free some space, for example with `./kdrift kernels --prune`, "
                             "or set KDRIFT_CACHE to another directory")
        return output.decode(errors="replace")


@contextlib.contextmanager
def _child(line: list[str], directory: Path | None) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], bytes]]]:
    """A process that ends with this one, and a function that reads its new output."""
    line = ["setpriv", "--pdeathsig", "KILL", *line]
    process = subprocess.Popen(line, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, "LC_ALL": "C"})
    output = process.stdout
    assert output is not None
    os.set_blocking(output.fileno(), False)
    try:
        yield process, lambda: output.read() or b""
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        output.close()


def is_absence(reason: str) -> bool:
    """Whether apt's reason means that the mirror does not carry the suite, and not a failure."""
    return bool(re.match(r"404\b|File not found", reason))


def _first_error(output: str, *marks: str) -> str | None:
    """The first of apt's errors and warnings that contains a mark, shortened for the user."""
    errors = [line for line in output.splitlines() if re.match(r"[EW]: ", line)]
    for line in errors:
        if any(mark in line for mark in marks):
            return re.sub(r"^(E|W):\s*", "", line).strip()
    return None


def _size(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size
    return total


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(text)
        temporary.replace(path)
