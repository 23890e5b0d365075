"""`./kdrift bisect TEST GOOD BAD`: the first kernel that behaves differently."""
import argparse
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from bisection.commits import TreeBisection, mail
from bisection.drive import Bisection, EndUnusable, Found
from bisection.machines import Machines, sources_key
from bisection.question import FAILS, NoDifference, Question, ask
from bisection.state import State, StateError, opened
from bisection.tree import Tree, TreeError, build_command, tag_of
from cli.bisected import Neighbours, neighbours, write_folder_of
from cli.refusal import refuse, refuse_error
from cli.run import absent_names, absolute, found
from common.errors import NO_SPACE, FetchError, NoSpaceError, SpecError
from common.status import Exit
from kernels.cache import Cache, sha256_of
from kernels.debian import Archive
from kernels.extract import Kernel
from kernels.flock import flocked
from kernels.grammar import is_fetched, parse
from kernels.modules import build_of
from kernels.packages import debian_version_key
from kernels.progress import Reporter
from kernels.spec import resolve
from kernels.versions import Available, between, in_archive, in_directory
from report.known import KnownIssuesError, listed
from report.results import TestResult, write_whole
from reproduce.collect import CannotExport, collect, is_outside
from vm.own import TooMuch
from vm.qemu import VMError, check_device, qemu

# Beside bisection.state.NAME; the second is for git bisect replay.
RESULT, LOG, LOCK = "result.txt", "git-bisect.log", "lock"


class Unnamed(Exception):
    """What was named is no single test; one line says so."""


def run(options: argparse.Namespace) -> int:
    if options.tolerance is not None and not options.measurement:
        return refuse("--tolerance needs --measurement")
    try:
        options.report.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return refuse(f"--report {options.report}: {error.strerror}")
    try:
        test = one_test(options.test)
        qemu()
        for device in options.devices:
            check_device(device)
        with Search(options, test) as search:
            return search.run()
    except (Unnamed, SpecError, StateError, TreeError, TooMuch, VMError) as error:
        return refuse(str(error).partition("\n")[0])
    except NoDifference as error:
        return refuse(error, Exit.NOTHING_JUDGED)
    except EndUnusable as error:
        return refuse(error, Exit.NOT_BOOTED)
    except (FetchError, OSError) as error:
        return refuse_error(error, options.report)
    except KeyboardInterrupt:
        return refuse(f"interrupted; the same command goes on from {options.report}", Exit.INTERRUPTED)


@dataclass(frozen=True)
class Conclusion:
    """The result in words, whether it is certain, and the last two versions or commits."""

    lines: list[str]
    certain: bool
    versions: tuple[str, str]
    neighbours: Neighbours | None           # None where it is not known which two they are, or the test fails on neither


class Search:
    """One bisection, over packages, commits, or first one and then the other. Raises what run() refuses."""

    def __init__(self, options: argparse.Namespace, test: str) -> None:
        self.options, self.test = options, test
        self.progress = Reporter()
        self.asked = {"test": test, "good": options.good, "bad": options.bad, "measurement": options.measurement, "change": options.change,
                      "tolerance": options.tolerance,
                      "directory": options.dir and str(options.dir.absolute()), "tree": options.git and str(options.git.absolute()),
                      "devices": options.devices, "the test and its libraries": sources_key(test)}
        self.tree: Tree | None = None
        if options.git:
            self.asked["how it is built"] = options.build or config_key(options.config)
            build = options.build or build_command(options.config.absolute(), os.cpu_count() or 1)
            self.tree = Tree(options.git, options.report / "tree", build)

    def __enter__(self) -> "Search":
        self._stack = ExitStack()
        try:
            self._stack.enter_context(flocked(self.options.report / LOCK, wait=False))
        except BlockingIOError:
            raise StateError(f"--report {self.options.report}: another bisection uses it") from None
        self.cache = self._stack.enter_context(Cache(say=self.progress.say))
        directory = self._stack.enter_context(self.cache.scratch())
        self.machines = Machines(self.test, directory, self.kernel, self.options.devices, ["--tables=all"])
        self._stack.callback(self.machines.end)
        if self.tree:
            self._stack.push(self.close_tree)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    def close_tree(self, kind: type[BaseException] | None, *_exc: object) -> None:
        """After Ctrl-C the worktree stays for the same command, with what is built there."""
        if self.tree and kind is not KeyboardInterrupt:
            self.tree.close()

    def kernel(self, spec: str, held: Cache) -> Kernel:
        option = self.options
        return resolve(spec, held, offline=option.offline, progress=self.progress, mirror=option.mirror,
                       allow_unverified=option.allow_unverified)

    def ask(self, old: TestResult, new: TestResult) -> Question:
        return ask(self.options.measurement, self.options.change, old, new, self.options.tolerance)

    def run(self) -> int:
        """The exit status."""
        try:
            return self._run()
        except OSError as error:            # of the cache and of machines' directories it would be a NoSpaceError
            if error.errno in NO_SPACE:
                raise NoSpaceError(f"no space left in {self.options.report}") from None
            raise

    def _run(self) -> int:
        options = self.options
        if not self.tree:
            return self.finish(self.packages())
        self.tree.check()
        if self.tree.changed():
            say(f"{options.git}: changes that are in no commit are not tested")
        absent = [name for name in (options.good, options.bad) if not self.tree.has(name)]
        if not absent:
            return self.finish(self.commits(options.good, options.bad))
        for name in absent:
            check_spec(name, options.git)
        packages = self.packages()
        if not packages.certain:
            return self.finish(packages)
        print("\n".join(packages.lines), flush=True)
        commits = self.commits(*map(tag_of, packages.versions))
        return self.finish(replace(commits, lines=[*packages.lines, "", *commits.lines]))

    def finish(self, conclusion: Conclusion) -> int:
        text = "\n".join([self.test, *conclusion.lines]) + "\n"
        write_whole(self.options.report / RESULT, text)
        print("\n".join(conclusion.lines), flush=True)
        if self.options.bug_report:
            if conclusion.neighbours:
                log = self.options.report / LOG
                texts = {"bisection.txt": text} | ({LOG: log.read_text()} if log.exists() else {})
                say(write_folder_of(self.options, self.test, conclusion.neighbours, texts))
            else:
                say("--bug-report: no folder: " + ("the test fails on neither kernel" if conclusion.certain else "only a range is known"))
        return Exit.OK if conclusion.certain else Exit.REGRESSION

    def packages(self) -> Conclusion:
        options = self.options
        specs = [absolute(spec) for spec in (options.good, options.bad)]
        by_spec = {spec: self.kernel(spec, self.cache) for spec in sorted(specs, key=is_fetched)}
        kernels = [by_spec[spec] for spec in specs]
        check_ends(*kernels)
        ends = [Available(each.version or each.release, spec) for each, spec in zip(kernels, specs, strict=True)]
        if self.tree:
            for each in ends:
                self.tree.commit(tag_of(each.version))
        archive = Archive(self.cache, offline=options.offline, progress=self.progress, mirror=options.mirror)
        steps = all_steps(ends, options.dir, archive)
        state = opened(options.report, {**self.asked, "good": ends[0].version, "bad": ends[1].version})
        inner = len(steps) - 2
        say(f"{self.test}: {inner} kernel{'s' * (inner != 1)} between {steps[0].version} and {steps[-1].version}")
        found_ = Bisection(steps, self.machines, state, self.ask, options.slots, options.confirm, say).run()
        lines = [*direction(ends, state), *found_.lines(), *known(self.test, found_, state)]
        pair = [steps[found_.at.old], steps[found_.at.new]]
        results = [state.steps[each.version].result for each in (steps[0], steps[-1])]
        failing = neighbours(results, [(each.spec, each.version) for each in pair])
        return Conclusion(lines, found_.certain, (pair[0].version, pair[1].version), failing if found_.at.exact else None)

    def commits(self, good: str, bad: str) -> Conclusion:
        tree = self.tree
        assert tree
        commits = {name: tree.commit(name) for name in (good, bad)}
        if commits[good] == commits[bad]:
            raise TreeError(f"{good} and {bad} are the same commit, {commits[good][:12]}")
        old, new = (bad, good) if tree.is_ancestor(bad, good) else (good, bad)
        state = opened(self.options.report, {**self.asked, "commits": commits}, "commits.json")
        state.save()                        # what is built from now on belongs to it
        found_ = TreeBisection(tree, commits[old], commits[new], self.machines, state, self.ask, self.options.confirm, say).run()
        write_whole(self.options.report / LOG, tree.log())
        lines = mail(self.test, found_, (old, new), {commit: tree.subject(commit) for commit in found_.first})
        failing = None
        if len(found_.first) == 1:
            pair = [(tree.kept(commit) or commit, commit[:12]) for commit in (tree.parent(found_.first[0]), found_.first[0])]
            failing = neighbours([state.steps[commits[end]].result for end in (old, new)], pair)
        return Conclusion(lines, found_.certain, (old, new), failing)


def check_spec(name: str, tree: Path) -> None:
    """Raises TreeError for a name that is no commit of the tree and may be no kernel."""
    try:
        parse(name)
    except SpecError:
        raise TreeError(f"{tree}: no commit or tag {name}, and no kernel has this name") from None


def config_key(file: Path) -> str:
    """Raises TreeError."""
    try:
        return sha256_of(file)[:16]
    except OSError as error:
        raise TreeError(f"--config {file}: {error.strerror}") from None


def say(line: str) -> None:
    print(line, flush=True)


def one_test(word: str) -> str:
    """The id of the test that a word names. Raises Unnamed."""
    place = found(word, Path.cwd())
    if not place:
        raise Unnamed(f"{Path(word.partition('::')[0]).absolute()}: No such file or directory")
    if absent := absent_names(place):
        raise Unnamed(f"{word}: the file has no {absent[0]}")
    if is_outside(place):                   # only a machine's pytest collects it
        return place
    try:
        tests = collect([place])
    except CannotExport as error:
        raise Unnamed(error) from None
    if len(tests) > 1:
        raise Unnamed(f"{word} means {len(tests)} tests: name one of them, such as {tests[0].nodeid}")
    return tests[0].nodeid


def check_ends(good: Kernel, bad: Kernel) -> None:
    """Raises SpecError for two that are the same."""
    if build_of(good) == build_of(bad):
        raise SpecError(f"{good.spec} and {bad.spec} are the same kernel, {good.version or good.release}")


def all_steps(ends: Sequence[Available], directory: Path | None, archive: Archive) -> list[Available]:
    """The kernels from the older end to the newer one. Raises SpecError, FetchError."""
    old, new = sorted(ends, key=lambda each: debian_version_key(each.version))
    if old.version == new.version:
        raise SpecError(f"both ends have the version {old.version}: nothing is between them")
    others = [*in_archive(archive), *(in_directory(directory) if directory else [])]
    return [old, *between(others, old.version, new.version), new]


def direction(ends: Sequence[Available], state: State) -> list[str]:
    """A line if the kernel that was called good fails and the other does not."""
    good, bad = (state.steps[each.version].result for each in ends)
    assert good and bad
    if good.outcome in FAILS and bad.outcome == "passed":
        return [f"{ends[0].version} was called good, but fails, and {ends[1].version} passes"]
    return []


def known(test: str, result: Found, state: State) -> list[str]:
    """What known_issues.toml has for a failure on one of the last two."""
    for number in (result.at.old, result.at.new):
        version = result.steps[number].version
        shown: TestResult | None = state.steps[version].result
        try:
            issues = listed(test, version) if shown and shown.outcome in FAILS else []
        except (KnownIssuesError, ValueError):
            issues = []
        if issues:
            return [f"known issue: {issue}" for issue in issues]
    return []
