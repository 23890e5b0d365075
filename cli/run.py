"""`./kdrift validate`, `pytest` and `selftest`: pytest with the suite's options and exit statuses.

Exit statuses: common.status.Exit.  With --bisect those that git bisect run expects.
"""
import argparse
import contextlib
import os
import re
import signal
import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pytest

from common.errors import SpecError
from common.project import PROJECT
from common.status import Exit
from fixtures.options import GROUP, PLUGIN, add_options
from kernels.grammar import LocalSpec, parse
from report.labels import split_label
from report.results import KernelResult
from report.status import bisect_status, of_pytest
from vm.own import TooMuch, own_arguments, own_directories, own_files

DEFAULT_PAIR = ["6.1", "6.12"]
DEFAULT_TESTS = "keepalive"                 # a first verdict within a minute; naming kernels runs everything
OF_A_TREE = ("arch", ".config", "Kbuild")   # what a directory has that is a kernel's
PATHS = ("baseline", "report", "bug_report", "ssh_config", "console")
NOTHING_TO_COMPARE = "validate compares kernels: name an old and a new one, or none; with --baseline, the new one"


def run(options: argparse.Namespace) -> int:
    if options.command == "selftest":
        return selftest(options.words)
    return suite(options.words, validate=options.command == "validate")


def suite(words: list[str], validate: bool) -> int:
    """Pytest in this process, from the project's directory or one below it."""
    plugin = CommandLine(Path.cwd(), validate)
    if not plugin.here.is_relative_to(PROJECT):
        os.chdir(PROJECT)
    if not {"-c", "--config-file"} & set(words):
        words = ["-c", str(PROJECT / "pytest.ini"), *words]     # pytest would look for it around every word that names a file
    signal.signal(signal.SIGTERM, interrupted)
    status = of_pytest(pytest.main([Word(word) for word in words], plugins=[plugin]))
    return bisect_status(status, plugin.kernels, plugin.compared) if "--bisect" in words else status


class Word(str):
    """A word of the command line, an object of its own: one that pytest calls a test is found again among all, even beside its equal."""


class CommandLine:
    """A pytest plugin that is there before pytest reads its command line.

    It brings the suite's options, so that pytest can tell their values from tests, makes paths absolute, which are relative to `here`, and
    with `validate` takes words that name no test for kernels.  In the end it keeps what the exit status of a bisection depends on.
    """

    __name__ = PLUGIN

    def __init__(self, here: Path, validate: bool) -> None:
        self.here, self.validate = here, validate
        self.kernels: list[KernelResult] = []
        self.compared = False

    @pytest.hookimpl
    def pytest_addoption(self, parser: pytest.Parser) -> None:
        self.parser = parser
        setattr(parser.optparser, "error", self.refuse)     # noqa: B010  (pytest's own prints the usage before the reason)
        add_options(parser.getgroup(*GROUP).addoption)

    def refuse(self, why: str) -> NoReturn:
        """In one line, as the other commands do."""
        raise pytest.UsageError(f"{why}; see ./kdrift {'validate' if self.validate else 'pytest'} --help")

    @pytest.hookimpl(wrapper=True)
    def pytest_cmdline_parse(self, args: list[str]) -> Generator[None, pytest.Config, pytest.Config]:
        """Name tests from where pytest runs, and give it what it needs for those outside the project before it looks for its root."""
        named = [word for word in self.parser.parse_known_args(args).file_or_dir if not self.validate or is_test(word, self.here)]
        tests = {id(word): Word(place) for word in named if (place := found(word, self.here))}
        args[:] = [tests.get(id(word), word) for word in args]
        args[:0] = map(Word, own_arguments(own_directories(tests.values())))
        words = tuple(args)
        config = yield
        config.invocation_params = replace(config.invocation_params, args=words)        # what a guest's pytest is started with
        return config

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> None:
        if config.option.help:
            return                          # pytest stops reading its words there
        if self.validate:
            self.take_kernels(config)
        self.check_tests(config)
        with contextlib.chdir(self.here):
            for name in PATHS:
                if value := getattr(config.option, name):
                    setattr(config.option, name, str(Path(os.path.expanduser(value)).absolute()))
            config.option.kernels = [absolute(kernel) for kernel in config.option.kernels]

    def take_kernels(self, config: pytest.Config) -> None:
        """Move kernels from the tests to --kernel.  Raises pytest.UsageError where there is nothing to compare."""
        option = config.option
        named = [word for word in option.file_or_dir if not is_test(word, self.here)]
        kernels = [*named, *option.kernels]
        if len(kernels) == 1 and not option.baseline or option.baseline and not kernels:
            raise pytest.UsageError(NOTHING_TO_COMPARE)
        option.validate = True
        option.kernels = kernels or DEFAULT_PAIR
        option.file_or_dir = [word for word in option.file_or_dir if not any(word is each for each in named)]
        # What pytest collects; without a word it is what pytest.ini says, or the directory below the project.
        config.args = option.file_or_dir or (config.getini("testpaths") if Path.cwd() == PROJECT else [str(Path.cwd())])
        # The guests are told too: they record what is compared.
        arguments = ["--validate", *(word for word in config.invocation_params.args if not any(word is each for each in named))]
        if not kernels and not option.keyword and not option.file_or_dir:
            option.keyword = DEFAULT_TESTS
            arguments += ["-k", DEFAULT_TESTS]
        config.invocation_params = replace(config.invocation_params, args=tuple(arguments))

    def check_tests(self, config: pytest.Config) -> None:
        """Raise pytest.UsageError for a test that is not there, and for tests outside the project that cannot be sent."""
        option = config.option
        if not option.pyargs:
            for word in option.file_or_dir:
                if not found(word, self.here):
                    path = Path(self.here, os.path.expanduser(word.partition("::")[0]))
                    raise pytest.UsageError(f"{path}: No such file or directory{'; a kernel is named by --kernel' * is_kernel(word)}")
                if absent := absent_names(word):
                    raise pytest.UsageError(f"{word}: the file has no {absent[0]}")
        own = own_directories(option.file_or_dir)
        if own and (option.hosts or option.vagrant is not None):
            raise pytest.UsageError(f"{own[0]}: tests outside of kdrift run on this machine's kernel and with --kernel, not with --ssh and "
                                    "--vagrant")
        try:
            own_files(own)
        except TooMuch as error:
            raise pytest.UsageError(str(error)) from None

    @pytest.hookimpl
    def pytest_unconfigure(self, config: pytest.Config) -> None:
        report = config.pluginmanager.get_plugin("kdrift-report")
        self.kernels, self.compared = getattr(report, "kernels", []), bool(getattr(report, "comparisons", []))


def absolute(kernel: str) -> str:
    """The argument of --kernel; where it is a path, from the root."""
    try:
        what, label = split_label(kernel, parse)
        spec = parse(what)
    except SpecError:
        return kernel                       # whoever reads it says what is wrong
    if not isinstance(spec, LocalSpec) or spec.kind == "running":
        return kernel
    return f"{spec.path}" + "".join(f",modules={each}" for each in spec.modules) + f"={label}" * bool(label)


def interrupted(number: int, frame: FrameType | None) -> None:
    """SIGTERM, with which CI systems cancel a job, is Ctrl-C: the reports are written.  A second one does not cut them off."""
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    raise KeyboardInterrupt


def selftest(options: list[str]) -> int:
    """The suite's own tests, which boot machines, and then the suite on the running kernel, each in a process of its own.

    With --vagrant those with whole machines instead; with --docs the commands of README and docs that boot machines; with --tree
    bisections over a real kernel tree; with --mutated those that break a kernel.
    """
    os.chdir(PROJECT)
    harness = ["-c", "tests/harness/pytest.ini"]
    families = sorted(str(path) for path in Path("tests").iterdir() if path.name not in ("harness", "__pycache__"))
    sessions = [[*harness, "-n", "2", "--dist", "worksteal", "tests/harness"],
                ["-c", "pytest.ini", "-n", "2", *families, "tests/harness/netns"]]
    for option, folder in (("--vagrant", "whole"), ("--docs", "docs"), ("--tree", "tree"), ("--mutated", "mutated")):
        if option in options:
            options.remove(option)
            sessions = [[*harness, f"tests/harness/{folder}"]]
    worst: int = Exit.OK
    for session in sessions:
        words = [*session, *options]
        print(f"kdrift: pytest {' '.join(words)}", flush=True)
        status = os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-m", "pytest", *words])
        if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            worst = worst or status
    return worst


def found(word: str, here: Path) -> str | None:
    """The word with the path of its test, from the current directory where the test is the project's; None where there is no such path.

    It is relative to `here`, or to the project.
    """
    file, colons, name = word.partition("::")
    for base in (here, PROJECT):
        path = Path(os.path.normpath(base / os.path.expanduser(file)))
        if os.path.exists(path):            # False for a name that is too long, too
            inside = path.resolve().is_relative_to(PROJECT)
            return f"{os.path.relpath(path.resolve()) if inside else path}{colons}{name}"
    return None


def is_test(word: str, here: Path) -> bool:
    """Whether a word names tests rather than a kernel, which may be a path too."""
    file, colons, _name = word.partition("::")
    path = Path(here, os.path.expanduser(file))
    if colons or path.suffix == ".py":
        return True
    place = Path(found(word, here) or path).resolve()
    if place.is_relative_to(PROJECT / "tests"):
        return True
    return os.path.isdir(place) and not any((place / name).exists() for name in OF_A_TREE) and any(place.rglob("test_*.py"))


def absent_names(word: str) -> list[str]:
    """Names of classes and functions in a node id that its file does not even mention: a machine would be started for nothing."""
    file, _colons, names = word.partition("[")[0].partition("::")
    if not names or not Path(file).is_file():
        return []
    text = Path(file).read_text(errors="replace")
    return [name for name in names.split("::") if not re.search(rf"\b{re.escape(name)}\b", text)]


def is_kernel(word: str) -> bool:
    try:
        return bool(parse(word))
    except SpecError:
        return False
