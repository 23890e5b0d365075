"""Which package lists of the Debian archive are fetched for a kernel: few, and never another kernel than with all of them."""

import json
import shutil

import pytest

from cli.__main__ import main
from common.errors import FetchError, SpecError
from kernels import debian
from kernels.spec import resolve
from tests.harness.debian_archive import DebianArchive, configure, new_archive, own_cache
from tests.harness.test_apt import Lines

OLD, SECURE, TRIXIE, SID = "6.1.0-8-cloud-amd64", "6.1.0-9-cloud-amd64", "6.12.7-cloud-amd64", "7.2.1-cloud-amd64"
INSTALLER = {"bookworm": (("6.1.0-8-amd64", "6.1.98-1"),), "trixie": (("6.12.7-amd64", "6.12.7-1"),), "sid": (("7.2.1-amd64", "7.2.1-1"),)}
PACKAGES = {"bookworm": f"*{OLD}*", "bookworm-security": f"*{SECURE}*", "trixie": f"*{TRIXIE}*", "sid": f"*{SID}*"}


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    with new_archive(tmp_path_factory.mktemp("archive")) as archive:
        archive.add_kernel(OLD, "6.1.98-1")
        archive.add_kernel(SECURE, "6.1.99-1")
        archive.add_kernel("6.1.0-10-cloud-amd64", "6.1.100-1")
        archive.add_kernel(TRIXIE, "6.12.7-1")
        archive.add_split_kernel(SID, "7.2.1-1")
        archive.add_split_kernel("7.2.2-cloud-amd64", "7.2.2-1")
        yield archive


@pytest.fixture
def archive(signed, tmp_path, monkeypatch):
    """The archive with a suite of each kind, a list of the installer's in each large one."""
    signed.mood = "well"
    shutil.rmtree(signed.root / "debian/dists", ignore_errors=True)
    for suite, packages in PACKAGES.items():
        signed.publish(suite, packages, INSTALLER.get(suite, ()))
    signed.requests.clear()
    with signed.serve() as address:
        source = f"deb [signed-by={signed.keyring}] {address}"
        configure(tmp_path, monkeypatch, f"{source} bookworm main\n{source} bookworm-security main\n")
        yield signed


@pytest.fixture
def cache(tmp_path, monkeypatch):
    with own_cache(tmp_path, monkeypatch) as cache:
        yield cache


def whole_lists(archive: DebianArchive) -> list[str]:
    """The large suites whose package list was asked for, in this order."""
    asked = [path.split("/")[3] for path in archive.requests if path.endswith("/main/binary-amd64/Packages")]
    return [suite for suite in asked if suite in ("bookworm", "trixie", "sid")]


@pytest.mark.parametrize(("spec", "version", "lists"), [
    ("6.1", "6.1.99-1", []), ("6.1.99-1", "6.1.99-1", []), (SECURE, "6.1.99-1", []), ("6.1.98-1", "6.1.98-1", ["bookworm"]),
    (OLD, "6.1.98-1", ["bookworm"]), (f"linux-image-{OLD}", "6.1.98-1", ["bookworm"]), ("6.12", "6.12.7-1", ["trixie"]),
    ("6", "6.12.7-1", ["trixie"]), ("7.2.1-1", "7.2.1-1", ["sid"]), (f"linux-modules-{SID}", "7.2.1-1", ["sid"])])
def test_only_suites_that_can_hold_the_kernel_are_read(archive, cache, spec, version, lists):
    """The list of a large suite takes 10 MB, the installer's, which names its kernels, 50 kB."""
    assert resolve(spec, cache, progress=Lines()).version == version
    assert whole_lists(archive) == lists


def test_newest_kernel_of_a_large_suite_wins_over_that_of_a_small_one(archive, cache):
    """A point release may bring a kernel that the security suite never had."""
    archive.publish("bookworm", "*6.1.0-[89]-*", [*INSTALLER["bookworm"], ("6.1.0-9-amd64", "6.1.99-1")])
    archive.publish("bookworm-security", f"*{OLD}*")

    assert resolve("6.1", cache, progress=Lines()).version == "6.1.99-1"


def test_large_suite_with_another_flavour_of_the_version_is_read(archive, cache):
    """The security suite may list the full kernel only, and a large suite the cloud kernel of the same version."""
    full = archive.add_kernel("6.1.0-9-amd64", "6.1.99-1")
    archive.publish("bookworm-security", f"{full}_*")
    archive.publish("bookworm", f"*{SECURE}*", [("6.1.0-9-amd64", "6.1.99-1")])

    assert resolve("6.1", cache, progress=Lines()).release == SECURE


@pytest.mark.parametrize("broken", ["missing", "other"])
def test_suite_without_installers_list_is_read_whole(archive, cache, broken):
    """A mirror may lack it, or be between two states."""
    path = archive.root / "debian/dists/trixie/main/debian-installer/binary-amd64/Packages"
    path.unlink() if broken == "missing" else path.write_text("Package: other\n")
    lines = Lines()

    assert resolve("6.12", cache, progress=lines).version == "6.12.7-1"
    assert whole_lists(archive) == ["trixie"]
    assert not [line for line in lines.lines if "cannot" in line]


def test_old_list_of_the_installers_hides_no_new_kernel(archive, cache, monkeypatch):
    resolve("6.1", cache, progress=Lines())
    monkeypatch.setattr(debian.time, "time", lambda now=debian.time.time: now() + 2 * 86400)
    archive.publish("trixie", "*6.1.0-10-*", [("6.1.0-10-amd64", "6.1.100-1")])
    (archive.root / "debian/dists/trixie/main/debian-installer/binary-amd64/Packages").write_text("Package: other\n")

    assert resolve("6.1", cache, progress=Lines()).version == "6.1.100-1"


def test_unknown_kernel_is_looked_for_everywhere(archive, cache):
    """An installer's list that lacks a kernel hides it from no one."""
    archive.publish("sid", PACKAGES["sid"], [("7.2.0-amd64", "7.2.0-1")])
    with pytest.raises(SpecError, match="no Debian kernel 6.5 .*nearest series are 6.1, 6.12, 7.2"):
        resolve("6.5", cache, progress=Lines())
    assert sorted(whole_lists(archive)) == ["bookworm", "sid", "trixie"]
    assert resolve("7.2.1-1", cache, progress=Lines()).version == "7.2.1-1"


def test_listing_has_the_kernels_of_every_suite(archive, cache, capsys):
    resolve("6.1", cache, progress=Lines())

    assert main(["kernels", "--json", "--offline"]) == 0
    printed = capsys.readouterr()
    assert [row["version"] for row in json.loads(printed.out)] == ["6.1.99-1"]
    assert "not listed, as their package lists have not been fetched: bookworm, trixie, sid\n" in printed.err
    assert main(["kernels", "--json"]) == 0
    assert [row["version"] for row in json.loads(capsys.readouterr().out)] == ["6.1.99-1", "6.12.7-1", "7.2.1-1"]


def test_package_that_a_small_suite_lost_is_taken_from_a_large_one(archive, cache):
    """The lists are equal, but a pool of security updates may be emptied first."""
    archive.publish("bookworm", "*6.1.0-[89]-*", [("6.1.0-9-amd64", "6.1.99-1")])
    stanza = archive.root / "debian/dists/bookworm-security/main/binary-amd64/Packages"
    assert "Filename: pool/linux" in stanza.read_text()
    archive.publish("bookworm-security", f"*{SECURE}*", moved="gone")

    assert resolve("6.1.99-1", cache, progress=Lines()).version == "6.1.99-1"
    assert whole_lists(archive) == ["bookworm"]


def test_userland_of_a_release_brings_its_list(archive, cache, tmp_path):
    archive.add_package("python3")
    archive.publish("trixie", "python3*", INSTALLER["trixie"])
    resolve("6.1", cache, progress=Lines())

    [deb] = debian.Archive(cache, progress=Lines()).fetch_userland(["python3"], "trixie", tmp_path / "debs")
    assert deb.name.startswith("python3_") and whole_lists(archive) == ["trixie"]


def test_unchanged_list_is_not_fetched_again_when_the_index_is(archive, cache, monkeypatch):
    resolve("6.12", cache, progress=Lines())
    monkeypatch.setattr(debian.time, "time", lambda now=debian.time.time: now() + 2 * 86400)
    archive.requests.clear()
    resolve("6.1", cache, progress=Lines())
    resolve("6.12", cache, progress=Lines())

    assert archive.requests and whole_lists(archive) == []


@pytest.mark.parametrize("patch", [True, False])
def test_of_a_changed_list_what_has_changed_is_fetched_when_the_index_is(archive, cache, monkeypatch, patch):
    """If the mirror has it."""
    resolve("7", cache, progress=Lines())
    monkeypatch.setattr(debian.time, "time", lambda now=debian.time.time: now() + 2 * 86400)
    archive.publish("sid", "*7.2.*", [("7.2.2-amd64", "7.2.2-1")])
    if not patch:
        (archive.root / "debian/dists/sid/main/binary-amd64/Packages.diff/1.gz").unlink()
    archive.requests.clear()

    resolve("6.1", cache, progress=Lines())
    assert resolve("7", cache, progress=Lines()).version == "7.2.2-1"
    assert whole_lists(archive) == ([] if patch else ["sid"])


def test_list_that_does_not_come_leaves_what_is_known_in_use(archive, cache):
    """In place of an answer of its own: what may be newer is named, and what can be nowhere else is an error."""
    (archive.root / "debian/dists/trixie/main/binary-amd64/Packages").write_text("other\n")
    lines = Lines()

    assert resolve("6", cache, progress=lines).version == "6.1.99-1"
    assert [line for line in lines.lines if line.startswith("cannot fetch the suites trixie (File has unexpected size")]
    with pytest.raises(FetchError, match="cannot fetch the package lists of trixie .File has unexpected size"):
        resolve("6.12", cache, progress=Lines())


def test_lists_of_another_mirror_are_not_read(archive, cache):
    resolve("6.12", cache, progress=Lines())
    shutil.rmtree(archive.root / "debian/dists/trixie")
    archive.publish("trixie", "none*", INSTALLER["trixie"])
    with archive.serve() as address, pytest.raises(SpecError, match="no Debian kernel 6.12"):
        debian.Archive(cache, progress=Lines(), mirror=address).index().newest("6.12")
