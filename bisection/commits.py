"""A bisection over the commits of a tree: git bisect chooses them, and a certificate is tried in the end."""
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bisection.builds import Builds
from bisection.drive import EndUnusable, Runner
from bisection.machines import Unusable
from bisection.question import Question
from bisection.search import NEW, OLD, SKIP
from bisection.state import State, Tried
from bisection.tree import Tree
from report.results import TestResult

_LEFT = re.compile(r"Bisecting: (\d+) revisions? left to test after this \(roughly (\d+) steps?\)")


@dataclass
class Proof:
    """What a commit of the certificate did under `seeds` seeds: how many gave the side that was expected."""

    what: str
    commit: str
    same: int
    seeds: int

    @property
    def holds(self) -> bool:
        return self.same == self.seeds

    def __str__(self) -> str:
        return f"{self.what}: {self.same} of {self.seeds} seeds"


@dataclass
class Named:
    """The first commit on the new side, or those among which it is; `proofs` are its certificate."""

    question: Question
    first: list[str]
    skipped: dict[str, str]                 # commits that say nothing, and why
    proofs: list[Proof] = field(default_factory=list)
    note: str = ""                          # why a part of the certificate is missing

    @property
    def certain(self) -> bool:
        return len(self.first) == 1 and bool(self.proofs) and all(proof.holds for proof in self.proofs)


class TreeBisection:
    """`old` and `new` are commits; `runner` tries images by their path."""

    def __init__(self, tree: Tree, old: str, new: str, runner: Runner, state: State,
                 ask: Callable[[TestResult, TestResult], Question], seeds: int, say: Callable[[str], None]) -> None:
        self.tree, self.old, self.new, self.runner, self.state, self.ask = tree, old, new, runner, state, ask
        self.seeds, self.say = seeds, say
        self.skipped: dict[str, str] = {}

    def run(self) -> Named:
        """Search. Raises TreeError, EndUnusable, NoDifference, NoSpaceError, OSError, KeyboardInterrupt."""
        self.tree.open(self.old)
        self.builds = Builds(self.tree)
        try:
            return self._found()
        finally:
            self.builds.end()

    def _found(self) -> Named:
        said = self._started()
        self.question = self._ends([] if _over(said) else [self.tree.chosen()])
        while not _over(said):
            commit = self.tree.chosen()
            self.say(f"{self.tree.subject(commit)}{self._left(said)}")
            side, words = self._side_of(commit)
            self.say(f"    {'skipped: ' * (side == SKIP)}{words}")
            if side == SKIP:
                self.skipped[commit] = words
            said = self.tree.bisect({OLD: "old", NEW: "new", SKIP: "skip"}[side])
        found = Named(self.question, re.findall(r"^([0-9a-f]{40})\b", said, re.MULTILINE), self.skipped)
        if len(found.first) == 1:
            self._certify(found)
        return found

    def _ends(self, following: Sequence[str]) -> Question:
        results = []
        for commit, then in ((self.old, [self.new]), (self.new, following)):
            self.say(f"trying {self.tree.subject(commit)}")
            tried = self._tried(commit, then)
            if tried.result is None:
                raise EndUnusable(f"{self.tree.subject(commit)}: {tried.trouble}")
            results.append(tried.result)
        question = self.ask(*results)
        for commit, words in ((self.old, question.old), (self.new, question.new)):
            self.say(f"{self.tree.subject(commit)}: {words}")
        return question

    def _started(self) -> str:
        self.tree.bisect("start", "--no-checkout", "--term-old=old", "--term-new=new")
        self.tree.bisect("new", self.new)
        return self.tree.bisect("old", self.old)

    def _left(self, said: str) -> str:
        """How far it is to the end; a step takes as long as one did so far, the first of which built all."""
        if not (left := _LEFT.search(said)):
            return ""
        took = sorted(tried.took_s for tried in self.state.steps.values())
        return f" ({left[1]} left after this, about {left[2]} more steps, {math.ceil((int(left[2]) + 1) * took[len(took) // 2])} s)"

    def _side_of(self, commit: str) -> tuple[str, str]:
        tried = self._tried(commit, self.tree.following(commit))
        return self.question.side(tried.result) if tried.result else (SKIP, tried.trouble)

    def _tried(self, commit: str, then: Sequence[str]) -> Tried:
        """What the commit does; these are built meanwhile."""
        if commit not in self.state.steps:
            began = time.monotonic()
            try:
                tried = Tried(self._attempt(commit, 1, then))
            except Unusable as why:
                tried = Tried(None, str(why))
            tried.took_s = round(time.monotonic() - began, 1)
            self.state.steps[commit] = tried
            self.state.save()
        return self.state.steps[commit]

    def _attempt(self, commit: str, seed: int, then: Sequence[str]) -> TestResult:
        spec = self.builds.built(commit)
        self.builds.ahead(then)
        self.runner.keep({spec})
        return self.runner.attempt(spec, seed)

    def _certify(self, found: Named) -> None:
        """The commit is on the new side, its parent on the old one, and so is the new end without the commit."""
        commit = found.first[0]
        self.builds.pause()
        revert = self.tree.revert(commit, self.new)
        if revert is None:
            found.note = "the revert does not apply to the new end"
        subject = self.tree.subject(commit)
        new, old = self.question.which(NEW).removeprefix("that "), self.question.which(OLD).removeprefix("that ")
        parent = self.tree.parent(commit)
        for what, at, side in ((f"{subject} {new}", commit, NEW), (f"its parent {old}", parent, OLD),
                               (f"its revert on the new end {old}", revert, OLD)):
            if at:
                self.say(f"trying {what} under {self.seeds} seeds")
                then = [each for each in (parent, revert) if each]
                same = sum(self._seed(at, seed, then) == side for seed in range(1, self.seeds + 1))
                found.proofs.append(Proof(what, at, same, self.seeds))

    def _seed(self, commit: str, seed: int, then: Sequence[str]) -> str:
        try:
            return self.question.side(self._attempt(commit, seed, then))[0]
        except Unusable:
            return SKIP


def _over(said: str) -> bool:
    return " is the first " in said or "only 'skip'ped commits left" in said


def mail(test: str, found: Named, ends: tuple[str, str], subjects: Mapping[str, str]) -> list[str]:
    """The text of a report to the commit's author; for a regression with the line for regzbot
    (Documentation/admin-guide/reporting-regressions.rst).

    `ends` are the old and the new end as the user named them; `subjects` are hash and subject of the commits.
    """
    old, new = found.question.which(OLD), found.question.which(NEW)
    if len(found.first) != 1:
        return [f"The first commit {new} is one of these; those with a reason say nothing:",
                *(f"  {subjects[commit]}{f': {found.skipped[commit]}' if commit in found.skipped else ''}" for commit in found.first)]
    commit = found.first[0]
    lines = [f"git bisect between {ends[0]} ({old}) and {ends[1]} ({new}) names the first commit {new}:", "",
             f"  {subjects[commit]}", "", f"The test is {test}. Each kernel ran in a machine of its own:", ""]
    lines += [f"  {proof}" for proof in found.proofs] + ([f"  {found.note}"] if found.note else [])
    return lines + ([] if new == "that passes" else ["", f"#regzbot introduced: {commit}"])
