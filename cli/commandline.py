"""The command line of ./kdrift: every command, its options, the module that runs it, and what it needs installed.

A new command is a function here, in COMMANDS, and a module with run(options).
"""
import argparse
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path

from cli.parser import CommandParser, Commands, Parser, PytestParser, WordsParser, add_archive_options
from common.project import PROJECT
from fixtures.options import add_knobs, add_options, natural, positive

DESCRIPTION = """
Does a new Linux kernel still behave, on the wire and at the socket, as its users expect?

What a command needs is installed first: system packages (as root or with sudo), and a virtual environment in .venv. README.md has the
exit statuses, docs/ the rest.
"""
PYTEST_TOO = "All options of pytest work too; `./kdrift {} -- --help` shows them."
# Sets of programs, as ./kdrift knows them.
MACHINES, COMMAND, CODE, SELFTEST, VAGRANT = "machines", "command", "code", "selftest", "vagrant"
GIT, BUILD, SOURCE = "git", "build", "source"
ONLY_SHOWN = {"--markers", "--fixtures", "--funcargs", "--fixtures-per-test", "--collect-only", "--co", "-V"}       # of pytest's options
GUARDS = PROJECT / "sensitivity/guards.toml"
FAIL_BY_DEFAULT = "regression,gone"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options, with `command`, `module`, `no_install` and the names in `needs`.  Exits after --help, --version and usage errors."""
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    options = parser().parse_args(arguments)
    options.no_install = "no_install" in options
    options.needs = options.needs(options) if callable(options.needs) else options.needs
    return options


def parser() -> Parser:
    whole = Parser(prog="kdrift", usage="kdrift COMMAND [options]", description=DESCRIPTION,
                   epilog="./kdrift COMMAND --help shows the options of a command.")
    commands = Commands(whole)
    for add in COMMANDS:
        add(commands)
    return whole


def validate(commands: Commands) -> None:
    command = commands.add("validate", "compare kernels with the oldest of them, and print a verdict", """
        Without kernels: the keepalive tests on Debian's newest 6.1 and 6.12. With kernels: all tests, or those that are named or chosen by
        -k. A kernel is a version (6.12, 6.1.187-1), a package, a bzImage or a built tree (docs/options.md). """
        + PYTEST_TOO.format("validate"), kind=PytestParser, module="cli.run", needs=of_pytest,
        usage="kdrift validate [OLD NEW [NEWER ...]] [TEST ...] [options]")
    add_options(command.add_argument_group("kernels").add_argument)


def pytest(commands: Commands) -> None:
    command = commands.add("pytest", "run the suite, on the running kernel or with --kernel in a machine", """
        TEST is a file, a directory or a test as pytest names it, also outside of kdrift (docs/writing-tests.md); without one, all run. """
        + PYTEST_TOO.format("pytest"), kind=PytestParser, module="cli.run", needs=of_pytest, usage="kdrift pytest [TEST ...] [options]")
    add_options(command.add_argument_group("kernels").add_argument)


def of_pytest(options: argparse.Namespace) -> Sequence[str]:
    return () if ONLY_SHOWN & set(options.words) else (MACHINES,)


def run(commands: Commands) -> None:
    command = commands.add("run", "run any command on kernels, in machines whose clock skips what is idle", """
        COMMAND begins in the current directory, or in --dir, at the same path. Files that the command line names are sent, with the
        interpreters and libraries that they need; other files are named by --dir and --add. Without COMMAND it is an interactive shell.

        The exit status is the command's, with several kernels the worst; 124: its time was over; 125: a kernel could not be had or booted;
        1: the kernel crashed or complained; 3: the machine was lost.""", kind=WordsParser, module="cli.command",
        needs=(MACHINES, COMMAND), usage="kdrift run [--kernel SPEC ...] [options] -- COMMAND [ARG ...]")
    add_command_options(command)
    command.add_argument("--timeout", metavar="SECONDS", type=amount, help="end the command after this much of the guest's time")
    command.add_argument("--kselftest", metavar="DIR", type=Path,
                         help="run the kernel's selftests: DIR has them installed, or is a kernel's source; COMMAND names some, such as "
                         "net:icmp.sh, or a collection, such as net")
    command.add_argument("--packetdrill", metavar="DIR", type=Path,
                         help="run packetdrill's scripts below DIR, each in three address forms; COMMAND names some, or directories")
    command.add_argument("--packetdrill-program", metavar="FILE", type=Path, help="the program (default: DIR's own, or that of PATH)")
    command.add_argument("--report", metavar="DIR", type=Path, help="write the reports to DIR, as those of the tests")
    command.add_argument("--with-paths", action="store_true", help="keep paths and the names of this machine and its user in the reports")
    command.add_argument("--bug-report", metavar="DIR", type=Path, help="write to DIR a folder for each result that failed or is known")
    command.add_argument("--good", metavar="SPEC", default="", help="a kernel on which what --bug-report reports must pass")
    command.add_argument("--bisect", metavar="RESULT", help="with two kernels: find the first one between them on which this result is "
                         "another; `command` is that of a command which reports none")
    command.add_argument("--confirm", metavar="N", type=natural, default=8, help="with --validate: retry each regression under N seeds on "
                         "both kernels; with --bisect the last two kernels (default: %(default)s)")
    command.add_argument("--validate", action="store_true", help="compare each kernel with the first one and print a verdict")
    command.add_argument("--fail-on", metavar="CLASS,...", default=FAIL_BY_DEFAULT,
                         help="with --validate: what makes the exit status 1 (default: %(default)s)")
    command.add_argument("--exact", action="store_true", help="with --validate: compare measurements without their tolerances")
    command.add_argument("--slots", metavar="N", type=positive, default=os.cpu_count(), help="machines at a time (default: one per core)")


def shell(commands: Commands) -> None:
    command = commands.add("shell", "open a shell on a kernel, whose clock stands still while nobody types", kind=CommandParser,
                           module="cli.command", needs=(MACHINES, COMMAND))
    add_command_options(command)
    command.set_defaults(words=(), timeout=None, kselftest=None, packetdrill=None, report=None, bisect=None, bug_report=None, good="",
                         confirm=0, validate=False, fail_on=FAIL_BY_DEFAULT, exact=False, slots=1)


def add_command_options(command: CommandParser) -> None:
    """What `run` and `shell` have in common."""
    add = command.add_argument
    add("--kernel", metavar="SPEC", action="append", dest="kernels", default=[],
        help="on this kernel (6.12, 6.1.187-1, a .deb, a bzImage, a build tree; default: 6.12); repeatable")
    add("--label", metavar="LABEL", action="append", dest="labels", default=[], help="name the kernels, in their order")
    add("--dir", metavar="DIR", type=Path, help="send a copy of this directory, at its own path, and begin there")
    add("--add", metavar="PATH", type=Path, action="append", default=[], help="send this file or directory, at its own path; repeatable")
    add("--tool", metavar="NAME", action="append", default=[], help="send this program of this machine, with its libraries; repeatable")
    add("--package", metavar="DEB", type=Path, action="append", default=[],
        help="send the files of this package, not those of packages that it depends on; repeatable")
    add("--module", metavar="NAME", action="append", dest="modules", default=[],
        help="load this module of the kernel, with those that it needs; repeatable")
    add("--env", metavar="NAME[=VALUE]", action="append", default=[], help="set a variable, without VALUE to what it is here; repeatable")
    add("--out", metavar="DIR", type=Path, help="bring what the command writes below $KDRIFT_OUT to DIR, with several kernels to DIR/LABEL")
    add("--user", metavar="NAME", default="root", help="run as this user: root, user, nobody, or one of this machine (default: root)")
    add("--fresh", action="store_true", dest="fresh_boot", help="boot the kernel instead of restoring its saved state")
    add("--device", metavar="NAME", action="append", dest="devices", default=[], help="add this QEMU device to the machine; repeatable")
    add_knobs(add)
    add("--speed", action="store_true", help="a processor twice as fast against the clock, for programs that check times")
    add("--deadline", metavar="SECONDS", type=positive, default=900,
        help="give up a machine that is silent for this long, not counting waits for a CPU (default: %(default)s)")
    add("--seed", metavar="N", type=positive, default=1, help="seed for what is random (default: 1)")
    add_archive_options(command)
    command.set_defaults(clock="virtual")


def amount(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise ValueError(text)
    return value


def selftest(commands: Commands) -> None:
    command = commands.add("selftest", "run the suite's own tests", PYTEST_TOO.format("selftest"), kind=PytestParser, module="cli.run",
                           needs=lambda options: (MACHINES, COMMAND, CODE, SELFTEST, *[VAGRANT] * ("--vagrant" in options.words),
                                                  *[GIT, BUILD, SOURCE] * ("--tree" in options.words)),
                           usage="kdrift selftest [--vagrant | --docs | --tree | --mutated] [options]")
    command.add_argument("--vagrant", action="store_true", help="those with whole machines instead: Debian 12 and 13, a builder")
    command.add_argument("--docs", action="store_true", help="the commands of README and docs that boot machines instead, typed")
    command.add_argument("--tree", action="store_true", help="bisections over a real kernel tree instead, each commit built and booted")
    command.add_argument("--mutated", action="store_true", help="those that break a kernel instead, and see invariants and tables fail")


def kernels(commands: Commands) -> None:
    command = commands.add("kernels", "list the kernels that can be had, and what the cache holds", """
        Without --all: the newest of each series, and all in the cache. Exit status 3: no list can be had.""", module="cli.kernels")
    command.add_argument("--all", action="store_true", help="every version and flavour")
    command.add_argument("--json", action="store_true", help="the same as JSON, sizes in bytes")
    command.add_argument("--prune", action="store_true", help="remove everything from the cache that is not in use")
    add_archive_options(command)


def merge(commands: Commands) -> None:
    command = commands.add("merge", "make one run out of the results of several", """
        Kernels stand in the order of the files; tests of one kernel that were spread over several files come together. The exit status is
        as if all had been one run; 2 for a file that cannot be used, two kernels of one label, or a test that two files have on one
        kernel.""", module="cli.merge")
    command.add_argument("files", metavar="FILE", nargs="+", help="results.json of a run; FILE=LABEL gives its kernel another label, "
                         "FILE=LABEL,LABEL two kernels")
    command.add_argument("--report", metavar="DIR", type=Path, help="write the reports of the whole there")
    command.add_argument("--validate", action="store_true", help="compare the kernels with the first one and print a verdict")
    command.add_argument("--fail-on", metavar="CLASS,...", default=FAIL_BY_DEFAULT,
                         help="with --validate: what makes the exit status 1 (default: %(default)s)")
    command.add_argument("--exact", action="store_true", help="with --validate: compare measurements without their tolerances")


def known(commands: Commands) -> None:
    command = commands.add("known", "list the known bugs of released kernels, record how they show, check the list", """
        known_issues.toml is the list; --record writes known_signatures.json. --check runs what is at the ends of the ranges; what is in the
        directory of --report is not run again. Exit status 1: --check found a range that is wrong; 3: a kernel could not be had or run, and
        its ranges are not checked.""", module="cli.known", needs=lambda options: (MACHINES,) if options.check else (),
        usage="kdrift known [--record [--anew] FILE ... | --check [ID ...] --report DIR] [options]")
    command.add_argument("names", metavar="FILE or ID", nargs="*",
                         help="results.json of runs for --record, entries for --check (default: all)")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--record", action="store_true", help="record how listed failures show")
    what.add_argument("--check", action="store_true", help="prove the ranges")
    command.add_argument("--anew", action="store_true",
                         help="with --record: what these kernels show of an entry replaces what they showed before")
    command.add_argument("--report", metavar="DIR", type=Path, help="with --check: where results are kept")
    command.add_argument("--slots", metavar="N", type=positive, default=1, help="with --check: machines at a time (default: %(default)s)")
    add_archive_options(command)


def chance(commands: Commands) -> None:
    command = commands.add("chance", "find what moves by itself between runs of one kernel, for chance.json", module="cli.chance")
    command.add_argument("files", metavar="FILE", nargs="+", type=Path, help="results.json of runs, best in several orders")
    command.add_argument("--add", action="store_true", help="keep what the file already says")
    command.add_argument("-o", "--output", metavar="FILE", type=Path, default=PROJECT / "chance.json", help="default: %(default)s")


def behaviour(commands: Commands) -> None:
    command = commands.add("behaviour", "write what kernels do, by series: behaviour.md and behaviour.json", module="cli.behaviour")
    command.add_argument("files", metavar="FILE", nargs="+", type=Path, help="results.json of a run")
    command.add_argument("-o", "--output", metavar="DIR", type=Path, default=PROJECT / "docs", help="default: %(default)s")


def tables(commands: Commands) -> None:
    command = commands.add("tables", "list the tables of the tests: their cells, and where these come from", """
        A cell is asserted, measured or left out. With NAME: every cell of this table.""", module="cli.tables",
        usage="kdrift tables [NAME | --write] [options]")
    command.add_argument("name", metavar="NAME", nargs="?", help="such as tcp.segments")
    command.add_argument("--write", action="store_true", help="write docs/tables.md")
    command.add_argument("-o", "--output", metavar="FILE", type=Path, default=PROJECT / "docs/tables.md",
                         help="with --write: write this file instead")


def sensitivity(commands: Commands) -> None:
    families = ", ".join(tomllib.loads(GUARDS.read_text()))
    command = commands.add("sensitivity", "break a kernel in one place at a time, and count how often the tests notice", """
        The guest's code is changed in memory, one instruction for each mutant, and those tests run that execute the instruction. A mutant
        is killed when a test has another outcome, a measurement that moved beyond its tolerance, other packets or counters, or no end,
        again each time that it is tried, and never without the mutant; otherwise it survived. What no test executes is not reached.

        With --tests the kernel stays as it is, and the world of each test is disturbed instead: a step is left out, an answer is another
        one, the network loses packets. It lists the tests that pass all the same.

        Exit status 3: the machine could not be used; 1: with --tests, a test stayed green.""", module="cli.sensitivity", needs=(MACHINES,))
    command.add_argument("families", metavar="FAMILY", nargs="*",
                         help=f"of {families}, with --tests any folder of tests/; all of them without one")
    command.add_argument("--tests", action="store_true", help="find the tests that pass whatever is done to their world")
    command.add_argument("--every", action="store_true", help="with --tests: go on until each assertion of a test has failed once")
    command.add_argument("-k", dest="expression", metavar="EXPR", help="only these tests, as pytest chooses them")
    command.add_argument("--functions", metavar="NAME", nargs="+", help="other functions than those in guards.toml")
    command.add_argument("--kernel", metavar="SPEC", default="6.12", help="the kernel to break (default: %(default)s)")
    command.add_argument("--most", metavar="N", type=positive,
                         help="mutants to try, spread evenly (default: 400); with --tests, disturbances of each test (default: 60)")
    command.add_argument("--slots", metavar="N", type=positive, default=os.cpu_count(), help="machines at a time (default: one per core)")
    command.add_argument("--report", metavar="DIR", type=Path, default=Path("sensitivity-report"),
                         help="where the results go (default: %(default)s); a run that was broken off goes on from there")
    add_archive_options(command)


def bisect(commands: Commands) -> None:
    command = commands.add("bisect", "find the first kernel that behaves differently, among those between two", """
        TEST is one test as pytest names it, GOOD and BAD are kernels on which it does not do the same; if BAD is the older one, the fix is
        searched for. Between them are all versions of the archive and of the cache. With --git they may be commits of the tree; between
        packages the search then goes on from tag to tag. The same command goes on where it was broken off.

        Exit status 1: only a range can be named, or not every seed agrees; 6: the ends do not differ.""",
        module="cli.bisect", usage="kdrift bisect TEST GOOD BAD [options]",
        needs=lambda options: (MACHINES, *[GIT] * bool(options.git), *[BUILD] * bool(options.git and not options.build)))
    command.add_argument("test", metavar="TEST")
    command.add_argument("good", metavar="GOOD", help="a kernel: 6.12, 6.1.187-1, a .deb, a bzImage, a build tree")
    command.add_argument("bad", metavar="BAD")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--measurement", metavar="NAME", help="search where this measurement of the test moves beyond its tolerance")
    command.add_argument("--tolerance", metavar="VALUE", type=amount,
                         help="with --measurement: how much it may move, in its unit, instead of the test's own tolerance")
    what.add_argument("--change", metavar="TEXT", help="search where the test begins to show this change, in the words of a verdict")
    command.add_argument("--dir", metavar="DIR", type=Path, help="also the kernels in .deb and .rpm files there")
    command.add_argument("--git", metavar="TREE", type=Path, help="go on among the commits of this tree, in a worktree of its own")
    command.add_argument("--config", metavar="FILE", type=Path, default=PROJECT / "bisection/small.config",
                         help="with --git: the configuration, over allnoconfig (default: %(default)s)")
    command.add_argument("--build", metavar="COMMAND",
                         help="with --git: makes arch/x86/boot/bzImage, and modules if need be, instead of make with --config")
    command.add_argument("--confirm", metavar="N", type=positive, default=8,
                         help="seeds for the last two kernels, and for a commit's certificate (default: %(default)s)")
    command.add_argument("--slots", metavar="N", type=positive, default=os.cpu_count(), help="machines at a time (default: one per core)")
    command.add_argument("--device", metavar="NAME", action="append", dest="devices", default=[],
                         help="add this QEMU device to the machines; repeatable")
    command.add_argument("--report", metavar="DIR", type=Path, default=Path("bisect-report"),
                         help="where the state and the result are kept (default: %(default)s)")
    command.add_argument("--bug-report", metavar="DIR", type=Path,
                         help="also write the folder of a bug report on the kernel that fails, with the result in it")
    add_archive_options(command)


def explore(commands: Commands) -> None:
    command = commands.add("explore", "make up scenarios, and find what a new kernel does differently in them", """
        Scenarios are made up by seed: hosts, sockets, routes, packets made by hand, and time that passes. Each runs on both kernels. What
        differs is confirmed, explained by changes.toml where it is known, and else shrunk to the smallest scenario that shows it.

        With one kernel, each runs there under two seeds, and what no kernel may do is looked for.

        Exit status 1: a difference that nothing explains; 3: a machine was lost; 6: no scenario was judged; 125: a kernel could not be
        fetched or booted.""", module="cli.explore", needs=(MACHINES,), usage="kdrift explore [OLD] NEW [options]")
    command.add_argument("kernels", metavar="[OLD] NEW", nargs="*",
                         help="the kernel that shows what is right, and the one to compare: a version, a package, a bzImage, a tree")
    command.add_argument("--promote", metavar="ID",
                         help="write the draft of a test from this finding of --report, with the figures of both kernels")
    command.add_argument("--minutes", metavar="N", type=positive, default=30,
                         help="begin no batch after this time (default: %(default)s); the same command continues")
    command.add_argument("--scenarios", metavar="N", type=positive, help="stop after so many scenarios in all")
    command.add_argument("--scenario", metavar="FILE", type=Path,
                         help="run this one alone: a scenario as JSON, or a kind-ID.json of an exploration")
    command.add_argument("--seed", metavar="N", type=positive, default=1, help="other scenarios (default: %(default)s)")
    command.add_argument("--batch", metavar="N", type=positive, default=100, help="scenarios in one machine (default: %(default)s)")
    command.add_argument("--slots", metavar="N", type=positive, default=os.cpu_count(), help="machines at a time (default: one per core)")
    command.add_argument("--report", metavar="DIR", type=Path, default=Path("explore-report"),
                         help="where findings go (default: %(default)s); an exploration that was broken off continues from there")
    add_archive_options(command)


def suspects(commands: Commands) -> None:
    command = commands.add("suspects", "list the functions whose code changed, and which of them a test executes", """
        The code of both kernels is taken from their images and modules and compared by function. For each TEST it is recorded in a machine
        what it executes on both; then its suspects follow, those that the fewest passing tests execute first.

        Exit status 3: a machine was lost; 6: a comparison would say nothing, as of kernels of two compilers; 125: a kernel could not be
        fetched.""", module="cli.suspects", needs=lambda options: (CODE, *[MACHINES] * bool(options.tests)),
        usage="kdrift suspects OLD NEW [TEST ...] [options]")
    command.add_argument("old", metavar="OLD", help="the older kernel: a version, a package, a bzImage, a tree")
    command.add_argument("new", metavar="NEW", help="the kernel to compare with it")
    command.add_argument("tests", metavar="TEST", nargs="*", help="a test, a file or a directory, as pytest names it")
    command.add_argument("--in", metavar="PATH", action="append", dest="paths", default=[],
                         help="compare the functions of source files whose path begins so, such as net/ipv4/tcp (default: net/ and "
                         "kernel/audit); repeatable")
    command.add_argument("--slots", metavar="N", type=positive, default=os.cpu_count(), help="machines at a time (default: one per core)")
    command.add_argument("--device", metavar="NAME", action="append", dest="devices", default=[],
                         help="add this QEMU device to the machines; repeatable")
    add_archive_options(command)


def export(commands: Commands) -> None:
    command = commands.add("export", "write a test as one file that needs neither kdrift nor pytest", """
        TEST is as pytest names it. With kernels the file is also run there, on empty machines. Exit status 1: with --all, a test cannot be
        exported.""", module="cli.export", needs=(MACHINES,), usage="kdrift export TEST|--all [options]")
    command.add_argument("tests", metavar="TEST", nargs="*")
    command.add_argument("--all", action="store_true", help="see that every test can be exported; which cannot, and why")
    command.add_argument("-o", "--output", metavar="FILE", type=Path, default=Path("repro.pyz"), help="default: %(default)s")
    command.add_argument("--kernel", metavar="SPEC", action="append", default=[],
                         help="run it on an empty machine with this kernel; repeatable")
    add_archive_options(command)


def bench(commands: Commands) -> None:
    command = commands.add("bench", "measure how fast kdrift is on this machine", """
        Every figure is the median of some runs; a benchmark measures, it does not judge.""", module="cli.bench", needs=(MACHINES,))
    command.add_argument("--kernel", metavar="SPEC", default="6.12", help="the kernel to boot (default: %(default)s)")
    command.add_argument("--runs", metavar="N", type=positive, default=5, help="runs of each line, at least 5 (default: %(default)s)")
    command.add_argument("--whole", action="store_true", help="also the whole suite, on each number of slots up to that of processors")
    command.add_argument("--json", action="store_true", help="the figures as JSON, with all values")
    command.add_argument("--against", metavar="FILE", type=Path, help="show the ratio to figures that --json has printed")


COMMANDS = (
    validate, pytest, run, shell, selftest, kernels, merge, known, chance, behaviour, tables, sensitivity, bisect, explore, suspects,
    export, bench,
)
