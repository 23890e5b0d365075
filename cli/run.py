"""`./kdrift validate`, `pytest` and `selftest`: pytest with the suite's options and exit statuses.

Exit statuses: common.status.Exit.  With --bisect those that git bisect run expects.
"""
import contextlib
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType

import pytest

from common.errors import SpecError
from common.project import PROJECT
from conftest import PLUGIN, add_options
from kernels.grammar import parse
from report.labels import split_label
from report.results import KernelResult
from report.status import bisect_status, of_pytest

DEFAULT_PAIR = ["6.1", "6.12"]
DEFAULT_TESTS = "keepalive"                 # a first verdict within a minute; naming kernels runs everything
PATHS = ("baseline", "report", "bug_report", "ssh_config")
NOTHING_TO_COMPARE = "validate compares kernels: name an old and a new one, or none; with --baseline, the new one"


def main(arguments: list[str]) -> int:
    command, *words = arguments
    if command == "selftest":
        return selftest(words)
    return run(words, validate=command == "validate")


def run(words: list[str], validate: bool) -> int:
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
        add_options(parser)

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> None:
        if config.option.help:
            return                          # pytest stops reading its words there
        if self.validate:
            self.take_kernels(config)
        with contextlib.chdir(self.here):
            for name in PATHS:
                if value := getattr(config.option, name):
                    setattr(config.option, name, str(Path(value).expanduser().absolute()))
            config.option.kernels = [absolute(kernel) for kernel in config.option.kernels]

    def take_kernels(self, config: pytest.Config) -> None:
        """Move kernels from the tests to --kernel.  Raises pytest.UsageError where there is nothing to compare."""
        option = config.option
        named = [word for word in option.file_or_dir if not is_test(word)]
        kernels = [*named, *option.kernels]
        if len(kernels) == 1 and not option.baseline or option.baseline and not kernels:
            raise pytest.UsageError(NOTHING_TO_COMPARE)
        option.validate = True
        option.kernels = kernels or DEFAULT_PAIR
        # What a guest's pytest is started with.
        arguments = [word for word in config.invocation_params.args if not any(word is each for each in named)]
        if not kernels and not option.keyword:
            arguments += ["-k", DEFAULT_TESTS]
        config.invocation_params = replace(config.invocation_params, args=tuple(arguments))

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
    if spec.path is None:
        return kernel
    return f"{spec.path}" + "".join(f",modules={each}" for each in spec.modules) + f"={label}" * bool(label)


def interrupted(number: int, frame: FrameType | None) -> None:
    """SIGTERM, with which CI systems cancel a job, is Ctrl-C: the reports are written.  A second one does not cut them off."""
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    raise KeyboardInterrupt


def selftest(options: list[str]) -> int:
    """The suite's own tests, which boot machines, and then the suite on the running kernel, each in a process of its own.

    With --vagrant those with whole machines instead; with --docs the commands of README and docs that boot machines.
    """
    os.chdir(PROJECT)
    harness = ["-c", "tests/harness/pytest.ini"]
    families = sorted(str(path) for path in Path("tests").iterdir() if path.name not in ("harness", "__pycache__"))
    sessions = [[*harness, "tests/harness"], ["-c", "pytest.ini", "-n", "2", *families, "tests/harness/netns"]]
    for option, folder in (("--vagrant", "whole"), ("--docs", "docs")):
        if option in options:
            options.remove(option)
            sessions = [[*harness, f"tests/harness/{folder}"]]
    worst = 0
    for session in sessions:
        words = [*session, *options]
        print(f"kdrift: pytest {' '.join(words)}", flush=True)
        status = os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-m", "pytest", *words])
        if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            worst = worst or status
    return worst


def is_test(word: str) -> bool:
    """Whether a word names tests rather than a kernel, which may be a path too."""
    return Path(word.partition("::")[0]).resolve().is_relative_to(PROJECT / "tests")
