"""The folders of `./kdrift run --bug-report`: one for each result that failed, crashed, or has a known issue."""
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bisection.machines import Unusable
from bisection.question import FAILS
from command.session import CommandRun, Task
from kernels.extract import Kernel
from report.results import KernelResult, Run, TestResult
from report.signature import general
from reproduce import text
from reproduce.evidence import clean, write_evidence
from reproduce.folder import REPORTED, finish, plain_folder_name
from reproduce.leaks import Private
from vm.command import ERRORS, OUTPUT

SEEDS = 3                                   # under which a failure is tried again
FILES, SCRIPT = "files.tar", "run.sh"
Attempt = Callable[[Task, str, str, int], TestResult]           # of a task's result, by id, on the kernel of a specification, under a seed


@dataclass(frozen=True)
class Bugs:
    """What the user wants: the directory, and the specification of a kernel on which the result must pass ("" for none)."""

    directory: Path
    good: str
    environment: dict[str, str]
    private: Private
    attempt: Attempt

    def write(self, runs: Sequence[CommandRun], kernels: Sequence[KernelResult], record: Run, say: Callable[[str], None]) -> None:
        """A folder for each result that is worth a report; `say` gets a line for each. Raises OSError."""
        by_spec = {run.kernel.label: run.kernel.kernel for run in runs}
        for kernel in kernels:
            for test in kernel.tests:
                if test.outcome in REPORTED:
                    run = next(each for each in runs if each.kernel.label == kernel.label and test.id.startswith(f"{each.task.name}::"))
                    say(self._folder(run, test, kernel, by_spec[kernel.label], kernels, record))

    def _folder(self, run: CommandRun, test: TestResult, kernel: KernelResult, source: Kernel | None, kernels: Sequence[KernelResult],
                record: Run) -> str:
        place = self.directory / plain_folder_name(test.id, kernel.label)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        test.promise = test.promise or f"`{shlex.join(run.task.words)}` reports `{test.id.partition('::')[2]}` as passed."
        write_evidence(place, test, kernel, record)
        (place / "output.txt").write_text(clean((run.output[OUTPUT] + run.output[ERRORS]).decode(errors="replace")))
        if run.log:
            (place / "dmesg.txt").write_text(clean("\n".join(run.log) + "\n"))
        shutil.copyfile(run.task.archive, place / FILES)
        (place / SCRIPT).write_text(script_of(run.task, self.environment))
        verified = self._verified(run, test, kernel)
        how = f"```\ntar -xp --keep-directory-symlink -C / -f {FILES}   # as root, in a machine that may be thrown away\nsh {SCRIPT}\n```"
        how += f"\n\nTried in new machines: {'; '.join(verified)}."
        (place / "report.md").write_text(text.report(test, kernel, source, kernels, None, {}, how=how))
        return f"{place}: {finish(place, self.private) or '; '.join(verified)}"

    def _verified(self, run: CommandRun, test: TestResult, kernel: KernelResult) -> list[str]:
        """In words, how often the failure comes again, and whether the good kernel lacks it."""
        shown = [self._shows(run.task, test, kernel.spec, seed) for seed in range(1, SEEDS + 1)]
        lines = [f"the same failure came again under {shown.count('the same')} of {SEEDS} seeds"]
        if self.good:
            lines.append(f"on {self.good}: {self._shows(run.task, test, self.good, 1)}")
        return lines

    def _shows(self, task: Task, test: TestResult, spec: str, seed: int) -> str:
        try:
            found = self.attempt(task, test.id, spec, seed)
        except Unusable as why:
            return str(why)
        if found.outcome in FAILS and general(" ".join(found.signatures)) == general(" ".join(test.signatures)):
            return "the same"
        return found.outcome


def script_of(task: Task, environment: dict[str, str]) -> str:
    """A shell script that runs the command where its files have been unpacked."""
    variables = [f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()]
    stdin = f" < {shlex.quote(task.stdin)}" if task.stdin else " < /dev/null"
    return "".join(["#!/bin/sh\n", *variables, f"cd {shlex.quote(task.cwd)} || exit\n", shlex.join(task.words), stdin, "\n"])
