"""./kdrift bisect as a command: its lines, its exit statuses and what it leaves behind, with stand-ins for kernels and machines."""
import errno
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from bisection.machines import Unusable
from cli.__main__ import main
from cli.bisect import LOCK
from common.errors import FetchError, NoSpaceError
from kernels.extract import Kernel
from kernels.flock import flocked
from kernels.versions import Available
from report.results import TestResult
from report.signature import signature
from reproduce.leaks import Private
from tests.harness.test_bisect_tree import BUILD, git, looked_at, repository

TEST = "tests/tcp/test_a.py::test_b"
VERSIONS = [f"6.12.{number}-1" for number in range(10, 20)]
FAILS = TestResult(TEST, "failed", message="assert 0 == 1", signatures=[signature("assert 0 == 1")])


class Stage:
    """What the kernels do, by version, or by the text of an image."""

    interrupted_at = 0                      # the number of an attempt at an image

    def looked(self):
        pass

    def __init__(self):
        self.results = {version: TestResult(TEST) if version < "6.12.15-1" else FAILS for version in VERSIONS}
        self.tried = []
        self.ended = 0

    def __call__(self, test, directory, resolve, devices, options):
        return self

    def attempt(self, spec, seed):
        self.tried.append(spec)
        if spec.endswith("bzImage"):
            self.looked()
            if len(self.tried) == self.interrupted_at:
                raise KeyboardInterrupt
            return FAILS if "bug" in Path(spec).read_text() else TestResult(TEST)
        result = self.results[spec]
        if isinstance(result, BaseException):
            raise result
        return result

    def ahead(self, specs):
        pass

    def keep(self, specs):
        pass

    def end(self):
        self.ended += 1


@pytest.fixture
def stage(monkeypatch, tmp_path):
    found = Stage()
    (tmp_path / "test_a.py").write_text("def test_b(): pass\n")
    monkeypatch.setattr("cli.bisect.sources_key", lambda test: (tmp_path / "test_a.py").read_text())
    def resolve(spec, *_arguments, **_options):
        if spec == "6.12.99-1":
            raise FetchError("no Debian kernel 6.12.99-1")
        return Kernel(spec, spec, None, spec, tmp_path / spec, None, spec)

    monkeypatch.setenv("KDRIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("cli.bisect.one_test", lambda word: TEST)
    monkeypatch.setattr("cli.bisect.qemu", lambda: None)
    monkeypatch.setattr("cli.bisect.build_of", lambda kernel: kernel.key)
    monkeypatch.setattr("cli.bisect.resolve", resolve)
    monkeypatch.setattr("cli.bisect.in_archive", lambda archive: [Available(version, version) for version in VERSIONS])
    monkeypatch.setattr("cli.bisect.Machines", found)
    return found


@pytest.fixture
def bisect(stage, tmp_path, capsys):
    """bisect(GOOD, BAD, options...): exit status, standard output, standard error."""
    def run(*words):
        status = main(["bisect", TEST, "--report", str(tmp_path / "report"), *words])
        return status, *capsys.readouterr()

    return run


def test_the_first_package_is_named_and_the_result_is_kept(bisect, stage, tmp_path):
    status, said, complained = bisect("6.12.10-1", "6.12.19-1")
    lines = ["last kernel that passes: 6.12.14-1 (under 8 of 8 seeds)", "first kernel that fails: 6.12.15-1 (under 8 of 8 seeds)"]
    assert (status, said.splitlines()[-2:], complained) == (0, lines, "")
    assert (tmp_path / "report/result.txt").read_text().splitlines() == [TEST, *lines]
    assert stage.ended and list((tmp_path / "cache/tmp").iterdir()) == []


def test_good_and_bad_may_be_swapped_and_a_wrong_name_is_said(bisect, stage):
    status, said, _complained = bisect("6.12.19-1", "6.12.10-1")
    assert status == 0 and "6.12.19-1 was called good, but fails, and 6.12.10-1 passes" in said
    assert said.endswith("first kernel that fails: 6.12.15-1 (under 8 of 8 seeds)\n")


def test_a_range_is_status_1(bisect, stage):
    stage.results["6.12.14-1"] = Unusable("the kernel did not boot")
    status, said, _complained = bisect("6.12.10-1", "6.12.19-1")
    assert status == 1 and said.endswith("which say nothing:\n  6.12.14-1: the kernel did not boot\n")


@pytest.mark.parametrize("words, results, status, why", [
    (["6.12.10-1", "6.12.11-1"], {}, 6, "the test passes on both ends"),
    (["6.12.10-1", "6.12.10-1"], {}, 2, "6.12.10-1 and 6.12.10-1 are the same kernel, 6.12.10-1"),
    (["6.12.10-1", "6.12.99-1"], {}, 125, "no Debian kernel 6.12.99-1"),
    (["6.12.10-1", "6.12.19-1"], {"6.12.19-1": Unusable("the kernel did not boot")}, 125, "6.12.19-1: the kernel did not boot"),
    (["6.12.10-1", "6.12.19-1"], {"6.12.16-1": NoSpaceError("no space left")}, 3, "no space left"),
    (["6.12.10-1", "6.12.19-1"], {"6.12.16-1": KeyboardInterrupt()}, 130, "interrupted; the same command goes on from "),
    (["6.12.10-1", "6.12.19-1", "--dir", "/nonexistent"], {}, 2, "/nonexistent: No such file or directory"),
    (["6.12.10-1", "6.12.19-1", "--measurement", "x"], {}, 6, "the test does not measure x on the old and the new end; it measures "),
    (["6.12.10-1", "6.12.19-1", "--git", "/nonexistent"], {}, 2, "/nonexistent is no git repository"),
], ids=lambda value: "")
def test_what_ends_a_bisection_is_one_line_with_its_status(bisect, stage, words, results, status, why):
    stage.results |= results
    found, _said, complained = bisect(*words, "--slots", "1")
    assert found == status and complained.startswith(f"kdrift: {why}") and complained.count("\n") == 1


def test_after_ctrl_c_the_same_command_goes_on_and_another_is_refused(bisect, stage):
    middle = stage.results["6.12.16-1"]
    stage.results["6.12.16-1"] = KeyboardInterrupt()
    assert bisect("6.12.10-1", "6.12.19-1", "--slots", "2")[0] == 130
    stage.results["6.12.16-1"], stage.tried[:] = middle, []
    status, _said, complained = bisect("6.12.10-1", "6.12.18-1")
    assert status == 2 and "is of another bisection (bad): choose another directory with --report" in complained
    assert bisect("6.12.10-1", "6.12.19-1", "--slots", "2")[0] == 0
    assert not {"6.12.10-1", "6.12.19-1"} & set(stage.tried)


@pytest.mark.parametrize("change, what", [
    (lambda place: ["--device", "qemu-xhci"], "devices"),
    (lambda place: ["--build", f"true; {BUILD}"], "how it is built"),
    (lambda place: (place / "test_a.py").write_text("edited") and [], "the test and its libraries"),
], ids=lambda value: "")
def test_results_of_other_sources_or_of_another_build_are_not_used(bisect, stage, tmp_path, change, what):
    source = repository(tmp_path / "linux", 7)
    words = ["c0", "c13", "--git", str(source), "--confirm", "1", "--build", BUILD]
    assert bisect(*words)[0] == 0
    status, _said, complained = bisect(*words, *change(tmp_path))
    assert status == 2 and f" is of another bisection ({what}): choose another directory with --report" in complained


def test_a_report_belongs_to_one_bisection_at_a_time(bisect, stage, tmp_path):
    (tmp_path / "report").mkdir()
    with flocked(tmp_path / "report" / LOCK, shared=True):     # only who wants it alone is refused
        status, _said, complained = bisect("6.12.10-1", "6.12.19-1")
    assert (status, complained) == (2, f"kdrift: --report {tmp_path}/report: another bisection uses it\n")
    assert stage.tried == []


def test_after_ctrl_c_the_worktree_stays_for_the_same_command_and_goes_in_the_end(bisect, stage, tmp_path):
    source = repository(tmp_path / "linux", 7)
    before, place = looked_at(source), tmp_path / "report/tree"
    words = ["c0", "c13", "--git", str(source), "--confirm", "1", "--build", f"echo >> object; {BUILD}"]
    stage.interrupted_at = 3
    status, _said, complained = bisect(*words)
    assert status == 130 and complained.endswith("interrupted; the same command goes on from " + str(tmp_path / "report") + "\n")
    assert (place / "object").exists()
    stage.interrupted_at, was = 0, (place / "object").stat().st_ino
    stage.looked = lambda: seen.add((place / "object").stat().st_ino)
    seen = set()
    assert bisect(*words)[0] == 0
    assert seen == {was} and not place.exists() and looked_at(source) == before


def test_a_full_disk_of_the_report_is_not_called_one_of_the_cache(bisect, stage, tmp_path, monkeypatch):
    def full(_state):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bisection.state.State.save", full)
    status, _said, complained = bisect("6.12.10-1", "6.12.19-1")
    assert (status, complained) == (3, f"kdrift: no space left in {tmp_path}/report\n")


@pytest.fixture
def session(monkeypatch):
    """Stand-in for ./kdrift pytest --bug-report: its words, by option; a folder unless `fails` is false."""
    class Words(dict):
        fails = True

    found = Words()

    def run(command, **_settings):
        found.update(word.lstrip("-").partition("=")[::2] for word in command[4:])
        folder = Path(found["bug-report"]) / f"tcp-test_a-b-on-{found['kernel'].rpartition('=')[2]}"
        if found.fails:
            folder.mkdir(parents=True)
            (folder / "report.md").write_text("# Fails\n")
        return subprocess.CompletedProcess(command, 1, f"{folder}: failing: REPRODUCED\n1 passed", "")

    monkeypatch.setattr("cli.bisected.subprocess", SimpleNamespace(run=run, DEVNULL=subprocess.DEVNULL))
    return found


def sums_of(folder):
    return dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())


def test_the_bug_report_has_the_certificate_beside_the_case(bisect, stage, tmp_path, session, monkeypatch):
    source = repository(tmp_path / "linux", 7)
    monkeypatch.setattr("cli.bisected.of_this_machine", lambda: Private(frozenset(), frozenset()))
    status, said, _complained = bisect("c0", "c13", "--git", str(source), "--build", BUILD, "--bug-report", str(tmp_path / "bugs"))
    bad, parent = (git(source, "rev-parse", name).strip() for name in ("c7", "c6"))
    images = tmp_path / "report/images"
    assert (session["kernel"], session["good"]) == (f"{images}/{bad}/bzImage={bad[:12]}", f"{images}/{parent}/bzImage")
    [folder] = (tmp_path / "bugs").iterdir()
    assert status == 0 and said.endswith(f"{folder}: failing: REPRODUCED\n")
    assert (folder / "bisection.txt").read_text().endswith(f"#regzbot introduced: {bad}\n")
    assert sums_of(folder).keys() == {"report.md", "bisection.txt", "git-bisect.log"}


def test_the_bug_report_is_about_the_kernel_that_fails_where_the_fix_is_found(bisect, stage, tmp_path, session):
    stage.results = dict(zip(VERSIONS, reversed(stage.results.values()), strict=True))
    status, _said, _complained = bisect("6.12.19-1", "6.12.10-1", "--bug-report", str(tmp_path / "bugs"))
    assert (status, session["kernel"], session["good"]) == (0, "6.12.14-1=6.12.14-1", "6.12.15-1")


def test_a_bug_report_that_cannot_be_made_is_said_and_changes_no_status(bisect, stage, tmp_path, session):
    session.fails = False
    status, said, _complained = bisect("6.12.10-1", "6.12.19-1", "--bug-report", str(tmp_path / "bugs"))
    assert status == 0 and said.endswith("--bug-report: no folder: 1 passed\n")
    stage.results["6.12.14-1"] = Unusable("no")
    status, said, _complained = bisect("6.12.10-1", "6.12.19-1", "--bug-report", str(tmp_path / "bugs"), "--report", str(tmp_path / "r"))
    assert status == 1 and said.endswith("--bug-report: no folder: only a range is known\n")


def test_a_tolerance_belongs_to_a_measurement(bisect, stage):
    status, _said, complained = bisect("6.12.10-1", "6.12.19-1", "--tolerance", "1")
    assert (status, complained) == (2, "kdrift: --tolerance needs --measurement\n")


def test_a_configuration_that_cannot_be_read_is_refused(bisect, tmp_path):
    source = repository(tmp_path / "linux", 7)
    status, _said, complained = bisect("c0", "c13", "--git", str(source), "--config", "/nonexistent")
    assert (status, complained) == (2, "kdrift: --config /nonexistent: No such file or directory\n")


def test_commits_are_searched_between_two_of_them(bisect, stage, tmp_path):
    source = repository(tmp_path / "linux", 7)
    before = looked_at(source)
    status, said, complained = bisect("c0", "c13", "--git", str(source), "--build", BUILD, "--confirm", "2")
    assert (status, complained) == (0, "") and said.endswith(f"#regzbot introduced: {git(source, 'rev-parse', 'c7')}")
    assert looked_at(source) == before
    assert (tmp_path / "report/git-bisect.log").read_text().startswith("git bisect start")


def test_between_packages_the_search_goes_on_from_tag_to_tag(bisect, stage, tmp_path):
    source = repository(tmp_path / "linux", 7)
    for number, commit in ((10, "c0"), (14, "c4"), (15, "c9"), (19, "c13")):
        git(source, "tag", f"v6.12.{number}", commit)
    (source / "kernel").write_text("work\n")
    status, said, _complained = bisect("6.12.10-1", "6.12.19-1", "--git", str(source), "--build", BUILD, "--confirm", "1")
    assert status == 0 and f"{source}: changes that are in no commit are not tested\n" in said
    assert "first kernel that fails: 6.12.15-1" in said and "git bisect between v6.12.14 (that passes) and v6.12.15 (that fails)" in said
    assert (tmp_path / "report/result.txt").read_text().endswith(f"#regzbot introduced: {git(source, 'rev-parse', 'c7')}")


def test_a_tree_without_the_tags_is_refused_before_anything_runs(bisect, stage, tmp_path):
    status, _said, complained = bisect("6.12.10-1", "6.12.19-1", "--git", str(repository(tmp_path / "linux", 7)))
    assert (status, complained) == (2, f"kdrift: {tmp_path}/linux: no commit or tag v6.12.10\n")
    status, _said, complained = bisect("v6.12.10", "v6.12.19", "--git", str(tmp_path / "linux"))
    assert (status, complained) == (2, f"kdrift: {tmp_path}/linux: no commit or tag v6.12.10, and no kernel has this name\n")
    assert stage.tried == []
