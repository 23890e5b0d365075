"""`./kdrift run -- COMMAND` and `./kdrift shell`: any command on any kernel, in time that skips what is idle."""
import argparse
import os
import select
import sys
from pathlib import Path

import pytest

from cli.command_bisect import bisect_command, resolver
from cli.refusal import refuse, refuse_error
from cli.run import absolute
from command.bugs import Bugs
from command.files import STDIN, Account, Luggage, account, working_directory
from command.kept import left_out_line, unpack_kept
from command.kselftest import installed_tree, tasks_of
from command.packetdrill import packetdrill_tasks, program_of
from command.results import name_of, recognise, results_of, status_of_runs
from command.search import CommandBench, CommandMachines
from command.session import CommandSession, Task, say
from common.errors import FetchError, SpecError
from common.status import Exit
from common.temporary import GuardedDirectory
from kernels.cache import Cache
from report.chance import ChanceError
from report.expected import ExpectedError
from report.known import KnownIssuesError
from report.results import KernelResult, Run, TestResult
from report.status import exit_status
from report.table import kernel_lines, outcome_table, render
from report.verdict import Comparison, compare_all, fail_on
from reproduce.leaks import of_this_machine
from rerun.confirm import confirm
from session.runs import find_kernels, name_columns
from session.shared import Began, hidden_here, write_shared
from vm.image import ImageError, packed_userland
from vm.shell import terminal_missing
from vm.wide import WIDE

BESIDE_MB = 300                             # MB of a machine's memory that its system and a command need besides the command's files
PATIENCE = 2                                # seconds without input until it is said that some is expected
SHELL = ("/bin/bash", "--login")
DEFAULT_KERNEL = "6.12"
BISECT_REPORT = Path("bisect-report")


def run(options: argparse.Namespace) -> int:
    """Returns the exit status: the command's; with --validate, or when there is none to have, one of common.status.Exit."""
    here = Path.cwd()
    options.suite = options.kselftest or options.packetdrill
    options.terminal = not options.words and not options.suite
    try:
        check(options)
        owner = account(options.user)
        environment = dict(read_variable(word) for word in options.env)
        with Cache() as cache:              # kernels are in use, and not pruned, until the end
            if options.bisect:
                with GuardedDirectory() as directory:
                    return bisect_command(options, prepare(options, owner, here, Path(directory), cache), owner, environment, cache)
            kernels = find_kernels([absolute(spec) for spec in options.kernels or [DEFAULT_KERNEL]], options, cache)
            name_columns(kernels, options.labels)
            with CommandSession(options, kernels, owner, environment) as session:
                began = Began()
                tasks = prepare(options, owner, here, session.directory, cache)
                runs = session.run(tasks)
                results = [results_of(kernel, [each for each in runs if each.kernel is kernel], options.seed, bool(options.suite))
                           for kernel in kernels]
                for result in results:
                    for test in result.tests:
                        recognise(test, result.version or result.release)
                if options.out:
                    for each in runs:
                        label, name = each.kernel.label, each.task.name.replace("/", "_")       # a label may be some of a path
                        below = [*label.split("/") * (len(kernels) > 1), *[name] * (len(tasks) > 1)]
                        if each.kept.exists() and (names := unpack_kept(each.kept, options.out, below)):
                            say(f"{each.prefix}{left_out_line(names)}")
                status = exit_status(results) if options.suite else status_of_runs(runs)
                comparisons = compare_all(results, options.failing, options.exact) if options.validate else []
                confirm_again(options, comparisons, tasks, owner, environment)
                if options.bug_report:
                    bugs_of(options, owner, environment).write(runs, results, record_of(began, status), say)
        return report(options, results, comparisons, began, status)
    except (SpecError, pytest.UsageError, ExpectedError, ChanceError, KnownIssuesError) as error:
        return refuse(error)
    except (FetchError, ImageError, OSError) as error:
        return refuse_error(error)


def bugs_of(options: argparse.Namespace, owner: Account, environment: dict[str, str]) -> Bugs:
    """The folders of --bug-report."""
    fetched = resolver(options)

    def attempt(task: Task, test: str, spec: str, seed: int) -> TestResult:
        return CommandMachines(options, task, test, owner, environment, fetched).attempt(spec, seed)
    return Bugs(options.bug_report, absolute(options.good) if options.good else "", environment, of_this_machine(), attempt)


def confirm_again(options: argparse.Namespace, comparisons: list[Comparison], tasks: list[Task], owner: Account,
                  environment: dict[str, str]) -> None:
    """Give each regression its confirmation: its command again, under several seeds on both kernels."""
    fetched = resolver(options)

    def bench(kernel: KernelResult) -> CommandBench:
        return CommandBench(lambda task: CommandMachines(options, task, "", owner, environment, fetched), tasks, absolute(kernel.spec))

    for comparison in comparisons:
        found = {now.id: now for _was, now in comparison.regressions}
        if not found or not options.confirm:
            continue
        say(f"retrying {len(found)} regression{'s' * (len(found) > 1)} under {options.confirm} seeds on both kernels (--confirm 0 "
            "disables this)")
        for test, confirmation in confirm(found, bench(comparison.new), bench(comparison.old), options.confirm).items():
            found[test].confirmation = confirmation.as_dict()


def record_of(began: Began, status: int) -> Run:
    """How the results came about."""
    return {"started": began.date, "duration_s": began.lasted_s(),
            "arguments": sys.argv[1:], "python": sys.version.split()[0], "exit_status": int(status)}


def check(options: argparse.Namespace) -> None:
    """Raises SpecError for what does not go together."""
    if options.terminal and terminal_missing():
        raise SpecError("a shell needs a terminal, and there is none; -- COMMAND runs a command")
    if options.gdb and options.fresh_boot:
        raise SpecError("--gdb: waits where a saved state is restored, and --fresh restores none")
    if options.kselftest and options.packetdrill:
        raise SpecError("--kselftest and --packetdrill are two suites: run one after the other")
    if options.terminal and len(options.kernels) > 1:
        raise SpecError("a shell runs on one kernel at a time")
    if options.bisect and len(options.kernels) != 2:
        raise SpecError("--bisect searches between two kernels: give --kernel GOOD --kernel BAD")
    if options.bisect and (options.validate or options.out or options.bug_report or options.terminal):
        raise SpecError("--bisect needs a command, and takes no --validate, --out and --bug-report")
    if options.validate and len(options.kernels) < 2:
        raise SpecError("--validate compares kernels: give --kernel at least twice")
    if options.bisect and not options.report:
        options.report = BISECT_REPORT
    try:
        options.failing = fail_on(options.fail_on)
    except ValueError as error:
        raise SpecError(f"--fail-on: {error}") from None
    if options.good and not options.bug_report:
        raise SpecError("--good: a kernel for --bug-report, which is not there")
    for directory in filter(None, (options.out, options.report, options.bug_report)):
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SpecError(f"{directory}: {error.strerror}") from None


def read_variable(word: str) -> tuple[str, str]:
    """NAME=VALUE, or the name of a variable of this environment.  Raises SpecError."""
    name, equals, value = word.partition("=")
    if not name or not equals and name not in os.environ:
        raise SpecError(f"--env {word}: expected NAME=VALUE, or NAME of a variable that is set here")
    return name, value if equals else os.environ[name]


def prepare(options: argparse.Namespace, owner: Account, here: Path, directory: Path, cache: Cache) -> list[Task]:
    """Pack what the command, or each selftest, needs.  Raises SpecError, ImageError, CacheError."""
    luggage = Luggage((packed_userland(cache, WIDE) / "names").read_text().splitlines())
    if options.dir:
        if not os.path.isdir(options.dir):
            raise SpecError(f"--dir {options.dir}: no such directory")
        luggage.add(options.dir)
    for path in options.add:
        luggage.add(path)
    for number, package in enumerate(options.package):
        luggage.add_package(package, directory / f"package-{number}")
    for name in options.tool:
        luggage.add_tool(name)
    archive = directory / "files.tar"
    if options.kselftest:
        tree = installed_tree(options.kselftest, options.words, directory, say)
        luggage.add(tree)
        check_room(luggage.pack(archive, owner, None), options.memory)
        return tasks_of(tree, options.words, archive, options.timeout)
    if options.packetdrill:
        program = program_of(options.packetdrill, options.packetdrill_program)
        tasks = packetdrill_tasks(options.packetdrill, options.words, program, archive, options.timeout)
        luggage.add(options.packetdrill)
        luggage.add(program)
        check_room(luggage.pack(archive, owner, None), options.memory)
        return tasks
    cwd = working_directory(options.dir, here)
    words = list(options.words) or list(SHELL)
    luggage.add_command(words, cwd)
    stdin = None if options.terminal else read_input()
    check_room(luggage.pack(archive, owner, stdin), options.memory)
    given = STDIN if stdin is not None else ""
    return [Task(name_of(words), tuple(words), str(cwd), archive, options.timeout or 0, given, options.terminal)]


def check_room(size: int, memory_mb: int) -> None:
    """Raises SpecError if the machine's memory, in which all files are, has no room for so many bytes."""
    room = memory_mb - BESIDE_MB
    if size >> 20 > room:
        raise SpecError(f"the files for the command take {size >> 20} MB; a machine with {memory_mb} MB has room for {room} MB: --memory "
                        "gives it more")


def read_input() -> bytes | None:
    """Standard input to its end, so that it is there when the command begins; None if it is a terminal, or nothing."""
    if sys.stdin is None or sys.stdin.isatty():
        return None
    if not select.select([sys.stdin], [], [], PATIENCE)[0]:
        say("reading standard input until it ends (</dev/null: there is none)")
    return sys.stdin.buffer.read() or None


def report(options: argparse.Namespace, kernels: list[KernelResult], comparisons: list[Comparison], began: Began, status: int) -> int:
    """Print and write what several kernels, or the user, call for; returns the exit status."""
    if options.validate:
        status = exit_status(kernels, comparisons)
    if options.report:
        try:
            write_shared(options.report, record_of(began, status), kernels, comparisons,
                         None if options.with_paths else hidden_here(map(Path, options.kernels)))
        except OSError as error:
            status = status or Exit.LOST
            refuse(f"--report {options.report}: {error.strerror}")
    if len(kernels) > 1 or options.report or options.suite:
        if any(kernel.tests for kernel in kernels):
            print(render(outcome_table(kernels), 120, sys.stdout.isatty()), end="")
        for line in kernel_lines(kernels):
            print(line)
    for comparison in comparisons:
        print("\n".join(comparison.lines()))
    return int(status)
