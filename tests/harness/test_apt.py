"""Debian kernels are fetched through apt: verified, resumed, and with one clear line when it does not work."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kernels import debian
from kernels.cache import Cache
from kernels.progress import Reporter
from kernels.spec import FetchError, SpecError, resolve
from tests.harness.debian_archive import configure, new_archive, own_cache
from tests.harness.sessions import heed_interrupts

ROOT = Path(__file__).parents[2]
RELEASE, VERSION = "6.1.0-9-cloud-amd64", "6.1.99-1"
PROGRAM = ("import sys; from kernels.cache import Cache; from kernels.spec import resolve\n"
           "with Cache() as cache: print(resolve(sys.argv[1], cache).vmlinuz)")


class Lines(Reporter):
    """Keeps what would be shown to a person."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    with new_archive(tmp_path_factory.mktemp("archive")) as archive:
        archive.add_kernel(RELEASE, VERSION, size=4_000_000)
        archive.add_kernel("6.1.0-8-cloud-amd64", "6.1.98-1")
        archive.add_kernel("6.1.0-9-amd64", VERSION)
        archive.add_split_kernel("7.2.1-cloud-amd64", "7.2.1-1")
        archive.add_package("python3", depends="python3.11")
        archive.add_package("python3.11")
        archive.publish(fillers=2000)
        yield archive


@pytest.fixture
def archive(signed, tmp_path, monkeypatch):
    """The archive, served well, and named in the apt configuration of the machine."""
    signed.mood = "well"
    signed.requests.clear()
    signed.resumed.clear()
    with signed.serve() as address:
        configure(tmp_path, monkeypatch, f"deb [signed-by={signed.keyring}] {address} bookworm main\n")
        yield signed


@pytest.fixture
def cache(tmp_path, monkeypatch):
    with own_cache(tmp_path, monkeypatch) as cache:
        yield cache


def wait_for_the_end_of(root: Path) -> None:
    """Fail if a process with this path in its command line is still there after a moment."""
    deadline = time.monotonic() + 10
    while left := [line for path in Path("/proc").glob("[0-9]*/cmdline") if str(root).encode() in (line := read(path))]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def end_at(parts: Callable[[], list[Path]], size: int, end: signal.Signals) -> None:
    """Run PROGRAM until one of the files has `size` bytes, then end it."""
    line = [sys.executable, "-c", PROGRAM, "6.1"]
    with subprocess.Popen(line, stderr=subprocess.DEVNULL, cwd=ROOT, preexec_fn=heed_interrupts) as process:
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size > size for path in parts()):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(end)


def read(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def test_newest_kernel_of_a_series_is_fetched(archive, cache):
    kernel = resolve("6.1", cache, progress=Lines())

    assert (kernel.package, kernel.version, kernel.release) == (f"linux-image-{RELEASE}", VERSION, RELEASE)
    assert kernel.vmlinuz.stat().st_size == 4_000_000
    assert (kernel.modules / "modules.dep").exists() and kernel.modules.name == RELEASE


def test_a_flavour_that_the_mirror_dropped_is_replaced_by_another_of_the_version(archive, cache, tmp_path):
    """As on the security archive, whose pool may hold the full kernel only."""
    [deb] = archive.pool.glob(f"linux-image-{RELEASE}_*.deb")
    lines = Lines()
    deb.rename(tmp_path / deb.name)
    try:
        kernel = resolve(VERSION, cache, progress=lines)
        with pytest.raises(FetchError, match="404"):
            resolve(f"linux-image-{RELEASE}", cache, progress=Lines())
    finally:
        (tmp_path / deb.name).rename(deb)

    assert (kernel.package, kernel.version) == ("linux-image-6.1.0-9-amd64", VERSION)
    assert any(line.startswith(f"cannot download linux-image-{RELEASE} {VERSION}: ") and line.endswith("; trying another flavour")
               for line in lines.lines)


def test_split_kernel_is_put_together(archive, cache):
    kernel = resolve("7", cache, progress=Lines())

    assert kernel.package == "linux-image-7.2.1-cloud-amd64"
    assert kernel.vmlinuz.parent == kernel.modules
    assert (kernel.modules / "kernel/net/empty.txt").exists()


def test_a_package_comes_with_all_that_it_depends_on(archive, cache, tmp_path):
    """The userland of an empty machine."""
    debs = debian.Archive(cache, progress=Lines()).fetch_userland(["python3"], "bookworm", tmp_path / "debs")

    assert [deb.name.split("_")[0] for deb in debs] == ["python3.11", "python3"]


def test_a_package_that_is_not_there_is_named(archive, cache, tmp_path):
    with pytest.raises(FetchError, match="cannot download no-such-package of bookworm"):
        debian.Archive(cache, progress=Lines()).fetch_userland(["no-such-package"], "bookworm", tmp_path / "debs")


def test_cached_kernel_needs_no_network(archive, cache):
    first = resolve("6.1", cache, progress=Lines())
    archive.requests.clear()

    assert resolve("6.1", cache, progress=Lines()) == first
    assert resolve(VERSION, cache, progress=Lines()).key == first.key
    assert archive.requests == []


def test_cached_kernel_needs_no_index(archive, cache):
    first = resolve("6.1", cache, progress=Lines())
    shutil.rmtree(cache.area("apt"))
    cache.area("apt").mkdir()

    assert resolve("6.1", cache, offline=True, progress=Lines()) == first
    assert resolve(RELEASE, cache, offline=True, progress=Lines()).key == first.key


def test_offline_without_a_cache_is_said(archive, cache):
    with pytest.raises(FetchError, match="no package index in the cache"):
        resolve("6.1", cache, offline=True, progress=Lines())
    assert archive.requests == []


@pytest.mark.parametrize("options", ["", "[trusted=yes allow-insecure=yes]"])
def test_archive_with_unknown_key_is_refused_even_if_the_host_trusts_it(archive, cache, tmp_path, options):
    sources = tmp_path / "sources.list"
    sources.write_text(re.sub(r"\[.*\]", options, sources.read_text()))

    with pytest.raises(FetchError, match="public key is not available"):
        resolve("6.1", cache, progress=Lines())


def test_key_in_the_list_itself_serves(archive, cache, tmp_path):
    sources = tmp_path / "sources.list"
    address = re.search(r"http\S+", sources.read_text())[0]
    key = archive.armoured_key().replace("\n\n", "\n.\n").strip().replace("\n", "\n ")
    (tmp_path / "parts/own.sources").write_text(f"Types: deb\nURIs: {address}\nSuites: bookworm\nComponents: main\n"
                                                f"Signed-By:\n {key}\n")
    sources.write_text("")

    assert resolve("6.1", cache, progress=Lines()).version == VERSION


def test_package_with_other_contents_is_refused(archive, cache):
    archive.mood = "other"
    with pytest.raises(FetchError, match=f"linux-image-{RELEASE}.*Hash Sum mismatch"):
        resolve("6.1", cache, progress=Lines())
    assert list(cache.area("kernels").iterdir()) == []


def test_package_that_ends_early_is_refused(archive, cache):
    archive.mood = "short"
    with pytest.raises(FetchError, match=f"cannot download linux-image-{RELEASE} {VERSION}"):
        resolve("6.1", cache, progress=Lines())
    assert list(cache.area("kernels").iterdir()) == []


def test_silent_mirror_is_given_up_within_30_seconds(archive, cache):
    archive.mood = "silent"
    began = time.monotonic()
    with pytest.raises(FetchError, match="does not respond") as failure:
        resolve("6.1", cache, progress=Lines())

    assert time.monotonic() - began < 30
    wait_for_the_end_of(cache.root)
    assert "\n" not in str(failure.value)


def test_dead_mirror_leaves_old_index_in_use(archive, cache, tmp_path, monkeypatch):
    first, shown = resolve("6.1", cache, progress=Lines()), Lines()
    monkeypatch.setattr(debian.time, "time", lambda now=time.time: now() + 2 * 86400)
    sources = tmp_path / "sources.list"
    sources.write_text(sources.read_text().replace("127.0.0.1", "127.0.0.2"))

    assert resolve("6.1", cache, progress=shown) == first
    assert [line for line in shown.lines if "using the package index of" in line]


def test_unreachable_network_is_named(archive, cache):
    line = ["unshare", "-rn", sys.executable, "-c", PROGRAM, "6.1"]
    result = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    if result.stderr.startswith("unshare"):
        pytest.skip(f"no private network namespace to be unreachable in: {result.stderr.strip()}")

    assert "FetchError: cannot fetch any package list (" in result.stderr and "Network is unreachable" in result.stderr


def test_missing_suites_leave_the_others_usable(archive, cache):
    shown = Lines()
    index = debian.Archive(cache, progress=shown).index()

    assert "trixie" in index.failed and "bookworm" not in index.failed
    assert {package.suite for package in index.packages} == {"bookworm"}
    assert not [line for line in shown.lines if "cannot fetch" in line]


def test_archive_that_is_down_costs_one_line_and_leaves_the_other_usable(archive, cache, tmp_path):
    with (tmp_path / "sources.list").open("a") as sources:
        sources.write("deb http://127.0.0.2:9/debian-security bookworm-security main\n")
    shown = Lines()

    assert resolve("6.1", cache, progress=shown).version == VERSION
    skipped = [line for line in shown.lines if line.startswith("cannot fetch the suites ")]
    assert len(skipped) == 1 and "bullseye-security, bookworm-security, trixie-security" in skipped[0]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_download_goes_on_where_it_ended(archive, cache, end):
    """On SIGINT kdrift ends apt; on SIGKILL it cannot. Half a file may be hundreds of megabytes."""
    archive.mood = "slow"
    downloads = cache.area("apt") / "downloads"
    end_at(lambda: list(downloads.glob("*/*")), 500_000, end)
    wait_for_the_end_of(cache.root)
    assert list(cache.area("kernels").iterdir()) == []
    assert any((cache.root / "tmp").glob("*.lock")) is (end == signal.SIGKILL)

    archive.mood = "well"
    with Cache() as second:
        assert resolve("6.1", second, progress=Lines()).vmlinuz.stat().st_size == 4_000_000
        assert list((second.root / "tmp").iterdir()) == []
    [(name, first)] = archive.resumed
    assert name.startswith(f"linux-image-{RELEASE}_") and first >= 500_000
    assert list(downloads.iterdir()) == []


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_package_list_goes_on_where_it_ended(archive, cache, end):
    archive.mood = "slow"
    end_at(lambda: list(cache.area("apt").glob("whole-*/partial/*_Packages*")), 500_000, end)
    wait_for_the_end_of(cache.root)

    archive.mood = "well"
    assert resolve("6.1", cache, progress=Lines()).version == VERSION
    [first] = [first for name, first in archive.resumed if name == "Packages"]
    assert first >= 500_000


def test_interrupt_ends_apt_too(archive, cache):
    archive.mood = "silent"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, "6.1"], stderr=subprocess.PIPE, cwd=ROOT, preexec_fn=heed_interrupts) as process:
        while not archive.requests:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in process.communicate(timeout=30)[1]
    wait_for_the_end_of(cache.root)


def test_connection_that_ends_leaves_what_came(archive, cache):
    archive.mood = "short"
    with pytest.raises(FetchError, match="Remote end closed connection"):
        resolve("6.1", cache, progress=Lines())
    archive.mood, archive.resumed = "well", []

    assert resolve("6.1", cache, progress=Lines()).vmlinuz.stat().st_size == 4_000_000
    [(name, first)] = archive.resumed
    assert name.startswith(f"linux-image-{RELEASE}_") and first > 1_000_000


@pytest.mark.parametrize("length", [1_000_000, None, 6_000_000])
def test_remains_are_not_taken_for_the_package(archive, cache, length):
    """Of any length (None: the package's), with the time of the mirror's file."""
    apt = debian.Archive(cache, progress=Lines())
    package = apt.index().newest("6.1").head
    part = cache.area("apt") / "downloads" / package.sha256[:16] / f"{package.name}_{package.version}_amd64.deb"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(length or package.size))
    modified = (archive.pool / part.name).stat().st_mtime
    os.utime(part, (modified, modified))

    assert resolve("6.1", cache, progress=Lines()).vmlinuz.stat().st_size == 4_000_000


def test_two_processes_fetch_a_kernel_once(archive, cache):
    line = [sys.executable, "-c", PROGRAM, "6.1"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT) as one, \
            subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT) as other:
        paths = {one.communicate(timeout=60)[0], other.communicate(timeout=60)[0]}

    assert len(paths) == 1 and (one.returncode, other.returncode) == (0, 0)
    assert sum(path.endswith(".deb") for path in archive.requests) == 1


def test_full_disk_is_one_clear_line(archive, tmp_path):
    mount = tmp_path / "full"
    mount.mkdir()
    script = f"mount -t tmpfs -o size=3m full {mount} && exec {sys.executable} -c '{PROGRAM}' 6.1"
    result = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True,
                            env={**os.environ, "KDRIFT_CACHE": str(mount)}, cwd=ROOT)
    if "unshare" in result.stderr:
        pytest.skip(f"no private mount namespace to fill a disk in: {result.stderr.strip()}")

    assert result.returncode == 1
    assert "NoSpaceError: no space left" in result.stderr.splitlines()[-1]


def test_damaged_kernel_is_fetched_anew(archive, cache):
    first = resolve("6.1", cache, progress=Lines())
    os.truncate(first.vmlinuz, 1000)
    said = []
    with Cache(say=said.append) as second:
        assert resolve("6.1", second, progress=Lines()).vmlinuz.stat().st_size == 4_000_000
    assert said == [f"cache entry kernels/{first.key} is damaged (boot/vmlinuz-{RELEASE} has 1000 bytes instead of "
                    "4000000): rebuilding it"]


def test_unknown_series_names_the_nearest(archive, cache):
    with pytest.raises(SpecError, match="no Debian kernel 6.5 .*nearest series are 6.1, 7.2"):
        resolve("6.5", cache, progress=Lines())


def test_real_archive_gives_a_kernel(tmp_path):
    """From the archive in this machine's apt configuration: the one test here that needs the network."""
    with Cache(tmp_path / "cache") as cache:
        kernel = resolve("5.10", cache, progress=Lines())

        assert kernel.release.startswith("5.10.0-") and kernel.version.startswith("5.10.")
        assert kernel.vmlinuz.stat().st_size > 1_000_000
        assert list(kernel.modules.rglob("xfrm_user.ko*"))
