"""apt without root, with its own state: apt verifies signatures and hashes, and the host's state stays untouched.

The host's proxy and authentication settings apply; only directories, hooks and the checks are set here.
"""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from common.errors import AbsentError, FetchError, NoSpaceError
from common.temporary import GuardedDirectory
from kernels.cache import sha256_of
from kernels.sources import LARGE, Source

ANSWER_WITHIN = 20.0  # seconds without progress until a mirror counts as not answering
TIME_TO_END = 2.0  # seconds that apt has to leave its partial files in order
DEADLINE_OPTIONS = ("Acquire::http::Timeout=10", "Acquire::https::Timeout=10", "Acquire::Retries=1")

CONFIGURATION = """\
Dir::State "{root}/state";
Dir::State::status "/dev/null";
Dir::Cache "{root}/cache";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "amd64";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::PDiffs "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Installer::MetaKey "$(COMPONENT)/debian-installer/binary-amd64/Packages";
Acquire::IndexTargets::deb::Installer::ShortDescription "Installer";
Acquire::IndexTargets::deb::Installer::Description "$(RELEASE)/$(COMPONENT) Installer";
Acquire::IndexTargets::deb::Installer::Optional "true";
Acquire::IndexTargets::deb::Installer::DefaultEnabled "false";
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
        # Apart, because apt takes a list for current if the suite's InRelease beside it is.
        self._lists, self._whole = root / "lists", root / f"whole-{self.origin}"

    @property
    def origin(self) -> str:
        """Identifies the sources: package lists of one origin are useless with another."""
        stanzas = "".join(source.stanza(suite) for suite, source in sorted(self.sources.items()))
        return hashlib.sha256(stanzas.encode()).hexdigest()[:16]

    def update(self, advance: Callable[[int], None] = lambda done: None) -> dict[str, str]:
        """Fetch the package lists of all suites, of the large ones only the installer's; returns the failed suites with the reasons.

        `advance` gets the bytes that came onto the disk. Raises FetchError if the mirror does not answer or every suite failed.
        """
        for written in [*self.root.glob("*.[0-9]*"), *self.root.glob("sources/*.[0-9]*")]:
            written.unlink(missing_ok=True)     # by a process that was killed: who updates is alone
        for area in self.root.glob("whole-*"):
            if area != self._whole:
                shutil.rmtree(area, ignore_errors=True)
        failed = self._update({suite: "Installer" if suite in LARGE else "Packages" for suite in self.sources},
                              self._lists, advance)
        if len(failed) == len(self.sources):
            reason = next((reason for reason in failed.values() if not is_absence(reason)), "the mirror has none of the suites")
            raise FetchError(f"cannot fetch any package list ({reason}): check the network or the proxy, or choose "
                             "another mirror with --mirror")
        return failed

    def update_whole(self, suites: Iterable[str], advance: Callable[[int], None] = lambda done: None) -> dict[str, str]:
        """Fetch the package lists of these large suites; returns the failed ones with the reasons.

        `advance` gets the bytes that came onto the disk. Raises FetchError if the mirror does not answer.
        """
        # The lists of other suites stay as they are: a next fetch may find them unchanged, or fetch what has changed since.
        return self._update(dict.fromkeys(suites, "Packages"), self._whole, advance, "APT::Get::List-Cleanup=false", "Acquire::PDiffs=true")

    def list_of(self, suite: str) -> Path | None:
        """The package list that was fetched of a suite."""
        return _list_in(self._lists_of(suite), f"_dists_{suite}_main_binary-amd64_Packages")

    def installer_list_of(self, suite: str) -> Path | None:
        """The list of the installer's packages that was fetched of a large suite."""
        return _list_in(self._lists, f"_dists_{suite}_main_debian-installer_binary-amd64_Packages")

    def signers(self, suite: str) -> str:
        """The keys that have signed the suite's list, by fingerprint; by the keyring's name if gpgv cannot say them."""
        signed_by = self.sources[suite].signed_by or ""
        keyrings = [word for word in signed_by.split() if word.startswith("/") and Path(word).is_file()]
        release = next(self._lists_of(suite).glob(f"*_dists_{suite}_InRelease"), None)
        program = shutil.which("gpgv")
        if program and release and keyrings:
            words = [word for keyring in keyrings for word in ("--keyring", keyring)]
            said = subprocess.run([program, "--status-fd", "1", *words, str(release)], capture_output=True, text=True, errors="replace")
            if found := sorted(set(re.findall(r"(?m)^\[GNUPG:\] VALIDSIG ([0-9A-F]+) ", said.stdout))):
                return ", ".join(found)
        return ", ".join(Path(keyring).name for keyring in keyrings) or "a key that apt trusts"

    def read_list(self, path: Path) -> bytes:
        """The text of a package list. Raises FetchError if apt cannot read it."""
        reader = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", str(path)], capture_output=True)
        if reader.returncode:
            raise FetchError(f"package list {path.name} is damaged: remove it with `./kdrift kernels --prune`")
        return reader.stdout

    def download(self, what: str, path: str, suite: str, directory: Path, sha256: str = "",
                 advance: Callable[[int], None] = lambda done: None) -> Path:
        """Fetch `what`, a file of the archive, into `directory`, going on where an interrupted download ended.

        Raises FetchError if the mirror does not answer or lacks it (AbsentError), or if its SHA-256, where given, is another.
        """
        self._configure()
        deb = directory / path.rpartition("/")[2]
        went_on = deb.exists()
        # apt-get download would begin again.
        line = ["download-file", f"{self.sources[suite].uris[0].rstrip('/')}/{path}", str(deb), *([f"SHA256:{sha256}"] if sha256 else [])]
        output = self._run(line, lambda: _size(directory), advance, what, program="/usr/lib/apt/apt-helper")
        found = re.search(r"(?m)^E:\s*(.+)$", output)
        error = found[1] if found else ""
        if not error and (not deb.exists() or (sha256 and sha256_of(deb.resolve()) != sha256)):
            error = "it is incomplete"
        if "Hash Sum mismatch" in error:
            for each in directory.iterdir():            # apt keeps what is wrong under another name
                each.unlink()
            if went_on:
                return self.download(what, path, suite, directory, sha256, advance)
        if error:
            raise (AbsentError if re.search(r" 404\b|File not found", error) else FetchError)(f"cannot download {what}: {error}")
        return deb

    def download_with_dependencies(self, packages: Sequence[str], suite: str, directory: Path,
                                   advance: Callable[[int], None] = lambda done: None) -> list[Path]:
        """Fetch packages with all their dependencies, as for a machine on which nothing is installed.

        Raises FetchError if the mirror does not answer or a package is unavailable.
        """
        self._configure()
        (directory / "partial").mkdir(parents=True, exist_ok=True)
        options = [*self._only(suite), f"Dir::Cache::archives={directory}", "Debug::NoLocking=true", "APT::Install-Recommends=false"]
        output = self._run(["install", "--yes", "--download-only", *packages], lambda: _size(directory), advance,
                           f"packages of {suite}", options)
        debs = sorted(directory.glob("*.deb"))
        if (error := _first_error(output, "")) or not debs:
            raise FetchError(f"cannot download {', '.join(packages)} of {suite}: {error or 'apt fetched nothing'}")
        return debs

    def _configure(self) -> None:
        for name in ("state", "lists/partial", f"{self._whole.name}/partial", "cache/archives/partial", "sources"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        _write(self.root / "apt.conf", CONFIGURATION.format(root=self.root))
        for suite, source in self.sources.items():
            _write(self.root / "sources" / f"{suite}.sources", source.stanza(suite))

    def _update(self, targets: dict[str, str], lists: Path, advance: Callable[[int], None], *options: str) -> dict[str, str]:
        """Fetch a list of each suite, apt's index target `targets[suite]`; returns the failed suites with the reasons."""
        self._configure()
        sources = self.root / "update.sources"
        _write(sources, "\n".join(self.sources[suite].stanza(suite, target) for suite, target in targets.items()))
        had = _size(lists)
        # Without apt's package cache, which is of no use here and takes seconds.
        output = self._run(["update"], lambda: max(0, _size(lists) - had), advance, "the package lists",
                           [f"Dir::Etc::sourcelist={sources}", f"Dir::State::lists={lists}", "pkgCacheFile::Generate=false", *options])
        failed = {}
        for suite, target in targets.items():
            came = re.search(rf"(?m)^(Hit|Get):.* {re.escape(suite)} (In)?Release", output)
            # "Err:2 ADDRESS SUITE Release", with the reason on the next line. The summary at the end reports an unreachable
            # network as a missing suite. A suite can do without an installer's list, but not with an old one.
            error = re.search(rf"(?m)^Err:.* {re.escape(suite)}(?: |/(?!.* Installer)).*\n\s+(.+)$", output)
            if (old := self.installer_list_of(suite)) and re.search(rf"(?m)^Err:.* {re.escape(suite)}/.* Installer", output):
                old.unlink()
            if not came or error or (target == "Packages" and not self.list_of(suite)):
                failed[suite] = error[1] if error else _first_error(output, f" {suite} ", f"/{suite}/") or "no response"
        return failed

    def _lists_of(self, suite: str) -> Path:
        return self._whole if suite in LARGE else self._lists

    def _only(self, suite: str) -> list[str]:
        """Options to read the list of one suite, which takes a tenth of the time of all."""
        return [f"Dir::Etc::sourcelist={self.root}/sources/{suite}.sources", f"Dir::State::lists={self._lists_of(suite)}"]

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
            raise NoSpaceError("no space left on device: free some space, for example with `./kdrift kernels --prune`, "
                               "or set KDRIFT_CACHE to another directory")
        return output.decode(errors="replace")


@contextlib.contextmanager
def _child(line: list[str], directory: Path | None) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], bytes]]]:
    """A process that ends with this one, and a function that reads its new output."""
    # A download goes on where it ended only if its partial file has the time of the mirror's. apt's methods set it on SIGTERM,
    # which a shell passes on to them if this process is killed.
    line = ["setpriv", "--pdeathsig", "TERM", "sh", "-c", "trap 'trap - TERM; kill 0' TERM; \"$@\" & wait", "sh", *line]
    with GuardedDirectory("kdrift-apt-") as temporary:      # where apt writes keys and signatures to check them, and leaves them if killed
        process = subprocess.Popen(line, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   start_new_session=True, env={**os.environ, "LC_ALL": "C", "TMPDIR": temporary})
        output = process.stdout
        assert output is not None
        os.set_blocking(output.fileno(), False)
        try:
            yield process, lambda: output.read() or b""
        finally:
            _end(process)
            output.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group, which get a moment to put their files in order."""
    deadline = time.monotonic() + TIME_TO_END
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


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


def _list_in(directory: Path, name: str) -> Path | None:
    """The list of this name, in any compression; Packages.diff_Index is none."""
    return next((path for path in directory.glob(f"*{name}*") if re.search(r"_Packages(\.[a-z0-9]+)?$", path.name)), None)


def _size(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size
    return total


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        temporary = path.with_suffix(f".{os.getpid()}")
        try:
            temporary.write_text(text)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
