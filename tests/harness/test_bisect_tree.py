"""./kdrift bisect --git: a small repository, whose "build" and "run" are stand-ins."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bisection.commits import TreeBisection, mail
from bisection.drive import EndUnusable
from bisection.machines import Unusable
from bisection.question import NoDifference, ask
from bisection.state import opened
from bisection.tree import Tree, TreeError, build_command, tag_of
from common.errors import NoSpaceError
from report.results import TestResult
from report.signature import signature

TEST = "tests/tcp/test_a.py::test_b"
COMMITS = 14
# The kernel is a copy of a file; a commit whose file says so does not build.
BUILD = "! grep -q broken kernel && mkdir -p arch/x86/boot && cp kernel arch/x86/boot/bzImage || { echo 'kernel.c:7: error: no'; exit 1; }"


class Images:
    """Stand-in for bisection.machines.Machines: what the image says is what the test does."""

    def __init__(self):
        self.tried = []

    def attempt(self, spec, seed):
        text = Path(spec).read_text()
        self.tried.append((Path(spec).parent.name, seed))
        if "hangs" in text:
            raise Unusable("the kernel did not boot")
        message = "assert 0 == 1" if "bug" in text else "OSError: another" if "other" in text else ""
        return TestResult(TEST, "failed" if message else "passed", message=message, signatures=[signature(message)] if message else [])

    def ahead(self, specs):
        pass

    def keep(self, specs):
        pass

    def end(self):
        pass


def git(place, *words):
    who = {f"GIT_{role}_{what}": "x" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return subprocess.run(["git", "-C", str(place), *words], check=True, capture_output=True, text=True,
                          env={**os.environ, **who, "GIT_CONFIG_GLOBAL": "/dev/null"}).stdout


def repository(place, first_bad, marks=None, conflict=False):
    """A line of commits, of which `first_bad` has the bug; `marks` are other words in the file up to the next commit."""
    place.mkdir()
    git(place, "init", "-q", "-b", "main")
    for number in range(COMMITS):
        lines = ["bug" if number >= first_bad else "good", *["same"] * 5, (marks or {}).get(number, "builds"), "same"]
        if conflict and number > first_bad:
            lines[0] += " and more"
        (place / "kernel").write_text("\n".join(lines) + "\n")
        (place / f"file{number}").write_text("")
        git(place, "add", ".")
        git(place, "commit", "-q", "-m", f"commit {number}")
        git(place, "tag", f"c{number}")
    return place


def looked_at(place):
    """What a user sees of the repository."""
    asked = ("status --porcelain --branch", "for-each-ref", "stash list", "worktree list --porcelain", "rev-parse HEAD")
    return [git(place, *words.split()) for words in asked]


def search(source, directory, old="c0", new=f"c{COMMITS - 1}", images=None, seeds=2):
    directory.mkdir(exist_ok=True)
    tree, said = Tree(source, directory / "tree", BUILD), []
    ends = tree.commit(old), tree.commit(new)
    state = opened(directory, {"test": TEST, "ends": list(ends)})
    bisection = TreeBisection(tree, *ends, images or Images(), state, lambda one, other: ask(None, None, one, other), seeds, said.append)
    try:
        found = bisection.run()
        return found, mail(TEST, found, (old, new), {commit: tree.subject(commit) for commit in found.first}), tree.log(), said
    finally:
        tree.close()


@pytest.mark.parametrize("first_bad", [1, 7, COMMITS - 1])
def test_the_commit_is_named_and_its_certificate_is_complete(first_bad, tmp_path):
    source = repository(tmp_path / "linux", first_bad, {3: "other", 5: "hangs", 9: "broken", 10: "broken"})
    before = looked_at(source)
    found, text, _log, _said = search(source, tmp_path / "report")
    commit = git(source, "rev-parse", f"c{first_bad}").strip()
    assert found.first == [commit] and found.certain
    assert [(proof.what.rpartition(") ")[2], proof.same) for proof in found.proofs] == [
        ("fails", 2), ("its parent passes", 2), ("its revert on the new end passes", 2)]
    assert text[-1] == f"#regzbot introduced: {commit}" and any(f'("commit {first_bad}")' in line for line in text)
    assert looked_at(source) == before and not (tmp_path / "report/tree").exists()


def test_the_fix_is_named_without_a_line_for_regzbot(tmp_path):
    source = repository(tmp_path / "linux", 0)
    (source / "kernel").write_text("good\n")
    git(source, "commit", "-q", "-a", "-m", "the fix")
    git(source, "tag", "fixed")
    found, text, _log, _said = search(source, tmp_path / "report", new="fixed")
    assert found.first == [git(source, "rev-parse", "fixed").strip()]
    assert not any("regzbot" in line for line in text)


def test_commits_that_do_not_build_or_boot_or_fail_otherwise_hide_it_and_are_named(tmp_path):
    source = repository(tmp_path / "linux", 12, {10: "broken", 11: "hangs"})
    found, text, _log, _said = search(source, tmp_path / "report")
    assert sorted(found.first) == sorted(git(source, "rev-parse", "c10", "c11", "c12").split()) and not found.certain
    assert text[0] == "The first commit that fails is one of these; those with a reason say nothing:"
    assert any('("commit 10"): does not build: kernel.c:7: error: no' in line for line in text)
    assert any('("commit 11"): the kernel did not boot' in line for line in text)


def test_a_revert_that_does_not_apply_is_said(tmp_path):
    source = repository(tmp_path / "linux", 5, conflict=True)
    found, text, _log, _said = search(source, tmp_path / "report")
    assert "  the revert does not apply to the new end" in text and len(found.proofs) == 2 and found.certain


def test_what_git_has_written_down_can_be_replayed(tmp_path):
    source = repository(tmp_path / "linux", 9)
    found, _text, log, _said = search(source, tmp_path / "report")
    assert "--no-checkout" not in log
    (tmp_path / "log").write_text(log)
    git(source, "worktree", "add", "-q", "--detach", str(tmp_path / "mine"), "c13")
    said = git(tmp_path / "mine", "bisect", "replay", str(tmp_path / "log"))
    assert f"{found.first[0]} is the first" in said


@pytest.mark.parametrize("end, error", [("broken", EndUnusable), ("bug", NoDifference)])
def test_ends_are_tried_first_and_nothing_is_searched_where_they_say_nothing(end, error, tmp_path):
    source, images = repository(tmp_path / "linux", 5, {0: end}), Images()
    with pytest.raises(error):
        search(source, tmp_path / "report", images=images)
    assert len(images.tried) <= 2 and not (tmp_path / "report/tree").exists()


def test_a_tree_that_cannot_be_bisected_is_named_in_one_line(tmp_path):
    source = repository(tmp_path / "linux", 5)
    with pytest.raises(TreeError, match="no commit or tag v6.12.90"):
        Tree(source, tmp_path / "tree", BUILD).commit("v6.12.90")
    (tmp_path / "none").mkdir()
    with pytest.raises(TreeError, match="none is no git repository"):
        Tree(tmp_path / "none", tmp_path / "tree", BUILD).check()


@pytest.mark.parametrize("words, error", [("No space left on device", NoSpaceError), ("no", Unusable)])
def test_a_build_that_fails_leaves_no_image_and_a_full_disk_is_no_commit_that_does_not_build(words, error, tmp_path):
    source = repository(tmp_path / "linux", 5)
    tree = Tree(source, tmp_path / "tree", f"{{ {BUILD}; }}; echo 'cc1: error: {words}'; exit 1")
    tree.open(tree.commit("c3"))
    with pytest.raises(error):
        tree.built(tree.commit("c3"))
    assert tree.kept(tree.commit("c3")) is None
    tree.close()


def test_modules_are_installed_beside_the_image_without_root(tmp_path):
    source = repository(tmp_path / "linux", 5)
    (source / "Makefile").write_text("modules_install:\n\tmkdir -p $(INSTALL_MOD_PATH)/lib/modules/6.12.0\n")
    git(source, "add", ".")
    git(source, "commit", "-q", "-m", "modules")
    tree = Tree(source, tmp_path / "tree", f"{{ {BUILD}; }} && echo net/x.o > modules.order")
    tree.open(tree.commit("HEAD"))
    image, modules = tree.built(tree.commit("HEAD")).split(",modules=")
    assert Path(image).is_file() and (Path(modules) / "lib/modules/6.12.0").is_dir()
    assert tree.built(tree.commit("HEAD")) == f"{image},modules={modules}"
    tree.build = f"{{ {BUILD}; }} && : > modules.order"
    assert tree.built(tree.commit("HEAD^")).endswith("/bzImage")
    tree.close()


class Curious(Images):
    """Of each commit that is tried, `wait` gets what git bisect may choose next, once."""

    def __init__(self, wait):
        super().__init__()
        self.wait, self.tree = wait, None

    def attempt(self, spec, seed):
        commit = Path(spec).parent.name
        if seed == 1 and commit not in dict(self.tried):
            self.wait(commit, Path(spec).parents[2])
        return super().attempt(spec, seed)


def test_what_may_come_next_is_built_while_the_last_commit_is_tested(tmp_path, monkeypatch):
    guessed = []

    def wait(commit, directory):
        for other in guessed[-1] if guessed else []:
            until = time.monotonic() + 20
            while not (directory / "images" / other / "bzImage").exists() and time.monotonic() < until:
                time.sleep(0.01)
            waited.append((directory / "images" / other / "bzImage").exists())

    following, waited = Tree.following, []
    monkeypatch.setattr(Tree, "following", lambda tree, commit: guessed.append(following(tree, commit)) or guessed[-1])
    source, images = repository(tmp_path / "linux", 5), Curious(wait)
    search(source, tmp_path / "report", images=images, seeds=1)
    chosen = [commit for commit, _seed in images.tried[2:]]
    assert waited and all(waited)
    assert all(commit in either for commit, either in zip(chosen[1:], guessed[:-1], strict=False))


def test_a_build_that_is_not_needed_anymore_is_given_up(tmp_path, monkeypatch):
    """c10 would be next if c6 were good."""
    monkeypatch.setattr(sys.modules[__name__], "BUILD", f"grep -q 'slow' kernel && sleep {200_000 + os.getpid()}; {BUILD}")
    source = repository(tmp_path / "linux", 3, {number: "slow" for number in (8, 9, 10, 11)})
    found, _text, _log, _said = search(source, tmp_path / "report")
    assert found.first == [git(source, "rev-parse", "c3").strip()] and found.certain
    assert subprocess.run(["pgrep", "-f", f"^sleep {200_000 + os.getpid()}$"]).returncode == 1


def test_the_worktree_of_a_killed_bisection_is_taken_over_with_what_it_has_built(tmp_path):
    source = repository(tmp_path / "linux", 5)
    tree = Tree(source, tmp_path / "tree", BUILD)
    tree.open(tree.commit("c2"))
    (tmp_path / "tree/object").write_text("built")
    directory = Path(git(tmp_path / "tree", "rev-parse", "--absolute-git-dir").strip())
    tree.bisect("start", "c13", "c0")
    (tmp_path / "tree/kernel").write_text("half a checkout")
    (directory / "index.lock").write_text("")
    tree = Tree(source, tmp_path / "tree", BUILD)
    tree.open(tree.commit("c3"))
    assert (tmp_path / "tree/object").read_text() == "built" and tree.head() == tree.commit("c3")
    assert git(tmp_path / "tree", "status", "--porcelain") == "?? object\n"
    with pytest.raises(TreeError, match="not bisecting"):
        tree.log()
    tree.close()


def test_a_worktree_of_the_users_that_is_not_there_now_is_not_forgotten(tmp_path):
    source = repository(tmp_path / "linux", 5)
    git(source, "worktree", "add", "-q", "--detach", str(tmp_path / "mine"), "c3")
    (tmp_path / "mine").rename(tmp_path / "unplugged")
    before = looked_at(source)
    search(source, tmp_path / "report")
    assert looked_at(source) == before


def test_changes_in_the_checkout_stay_and_are_seen(tmp_path):
    source = repository(tmp_path / "linux", 5)
    tree = Tree(source, tmp_path / "tree", BUILD)
    assert not tree.changed()
    (source / "kernel").write_text("half-done work\n")
    assert tree.changed()
    before = looked_at(source)
    search(source, tmp_path / "report")
    assert looked_at(source) == before and (source / "kernel").read_text() == "half-done work\n"


def test_after_kill_the_checkout_is_untouched_and_the_next_one_goes_on(tmp_path):
    """SIGKILL while a commit is built, which the builds ends too."""
    source = repository(tmp_path / "linux", 8)
    before, report = looked_at(source), tmp_path / "report"
    build = f"sleep {100_000 + os.getpid()}"
    slow = f"test $(ls {report}/images 2> /dev/null | wc -l) -lt 4 || {build}; "
    script = (f"import sys; sys.path[:0] = {sys.path!r}\nfrom pathlib import Path\nfrom tests.harness import test_bisect_tree as t\n"
              f"t.BUILD = {slow!r} + t.BUILD\nt.search(Path({str(source)!r}), Path({str(report)!r}))")
    process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    while subprocess.run(["pgrep", "-f", f"^{build}$"], capture_output=True).returncode:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [git(source, "rev-parse", "HEAD"), git(source, "status", "--porcelain")] == [before[-1], ""]
    while not subprocess.run(["pgrep", "-f", f"^{build}$"], capture_output=True).returncode:
        time.sleep(0.02)
    images = Images()
    found, _text, _log, _said = search(source, report, images=images)
    assert found.first == [git(source, "rev-parse", "c8").strip()] and looked_at(source) == before
    ends = {git(source, "rev-parse", name).strip() for name in ("c0", f"c{COMMITS - 1}")}
    assert not ends & {commit for commit, _seed in images.tried}


@pytest.mark.parametrize("version, tag", [("6.12.90-2~bpo12+1", "v6.12.90"), ("7.3~rc7-1~exp1", "v7.3-rc7"), ("6.1-1", "v6.1")])
def test_a_package_has_the_tag_of_its_upstream_version(version, tag):
    assert tag_of(version) == tag


def test_a_tree_is_built_with_all_processors_and_ccache_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build_command(Path("/a/b.config"), 4) == 'make -s KCONFIG_ALLCONFIG="/a/b.config" allnoconfig && make -s -j4'
    (tmp_path / "ccache").write_text("#!/bin/sh\n")
    (tmp_path / "ccache").chmod(0o755)
    assert build_command(Path("/a/b.config"), 4).endswith('make -s -j4 CC="ccache gcc"')
