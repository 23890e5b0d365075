"""`./kdrift validate`, `pytest` and `selftest`: pytest with the suite's options and exit statuses.

Exit statuses: common.status.Exit.  With --bisect those that git bisect run expects.
"""
import os
import signal
import sys
from pathlib import Path
from types import FrameType

import pytest

from common.errors import SpecError
from common.project import PROJECT
from common.status import Exit
from kernels.grammar import parse
from report.labels import split_label
from report.results import KernelResult
from report.status import bisect_status, of_pytest

DEFAULT_PAIR = ["6.1", "6.12"]
DEFAULT_TESTS = ["-k", "keepalive"]         # a first verdict within a minute; naming kernels runs everything
WITH_VALUE = ("--baseline", "--kernel", "--label", "--clock", "--slots", "--deadline", "--report", "--mirror", "--bug-report", "--good", "--shell-on",
              "--confirm", "--ssh", "--builder", "--ssh-config", "--fail-on", "--seed")
PATHS = ("--baseline", "--report", "--bug-report", "--ssh-config")


def main(arguments: list[str]) -> int:
    command, options = arguments[0], joined(arguments[1:])
    if command == "selftest":
        return selftest(options)
    if command == "validate":
        stored = [option for option in options if option.startswith("--baseline=")]
        options = [option for option in options if option not in stored]
        kernels = []
        while options and not options[0].startswith("-") and not is_test(options[0]):
            kernels.append(options.pop(0))
        if len(kernels) == 1 and not stored or stored and not kernels:
            print("kdrift: validate compares kernels: name an old and a new one, or none; with --baseline, the new one", file=sys.stderr)
            return Exit.BISECT_USAGE if "--bisect" in options else Exit.USAGE
        if not kernels:
            kernels, options = DEFAULT_PAIR, [*DEFAULT_TESTS, *options]
        options = ["--validate", *stored, *(f"--kernel={kernel}" for kernel in kernels), *options]
    return run(options)


def run(options: list[str]) -> int:
    """Pytest in this process, from the project's directory or one below it."""
    if not Path.cwd().is_relative_to(PROJECT):
        options = [from_here(option) for option in options]
        os.chdir(PROJECT)
    seen = Seen()
    signal.signal(signal.SIGTERM, interrupted)
    status = of_pytest(pytest.main(options, plugins=[seen]))
    return bisect_status(status, seen.kernels, seen.compared) if "--bisect" in options else status


def from_here(option: str) -> str:
    """The option with the absolute path of what it names relative to the current directory: a file, a directory or a kernel."""
    name, equals, value = option.partition("=")
    if name in PATHS and equals:
        return f"{name}={Path(value).expanduser().absolute()}"
    if name == "--kernel" and equals:
        try:
            what, label = split_label(value, parse)
            spec = parse(what)
        except SpecError:
            return option                   # whoever reads it says what is wrong
        if spec.path:
            return f"{name}={spec.path}" + "".join(f",modules={each}" for each in spec.modules) + f"={label}" * bool(label)
    return option


def interrupted(number: int, frame: FrameType | None) -> None:
    """SIGTERM, with which CI systems cancel a job, is Ctrl-C: the reports are written.  A second one does not cut them off."""
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    raise KeyboardInterrupt


class Seen:
    """A pytest plugin that keeps what the exit status of a bisection depends on."""

    def __init__(self) -> None:
        self.kernels: list[KernelResult] = []
        self.compared = False

    @pytest.hookimpl
    def pytest_unconfigure(self, config: pytest.Config) -> None:
        report = config.pluginmanager.get_plugin("kdrift-report")
        self.kernels, self.compared = getattr(report, "kernels", []), bool(getattr(report, "comparisons", []))


def selftest(options: list[str]) -> int:
    """The suite's own tests, which boot machines, and then the suite on the running kernel, each in a process of its own.

    With --vagrant those with whole machines instead.
    """
    os.chdir(PROJECT)
    harness = ["-c", "tests/harness/pytest.ini"]
    families = sorted(str(path) for path in Path("tests").iterdir() if path.name not in ("harness", "__pycache__"))
    sessions = [[*harness, "tests/harness"], ["-c", "pytest.ini", "-n", "2", *families, "tests/harness/netns"]]
    if "--vagrant" in options:
        options.remove("--vagrant")
        sessions = [[*harness, "tests/harness/whole"]]
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


def joined(arguments: list[str]) -> list[str]:
    """`--report DIR` as `--report=DIR`: pytest looks for its configuration in every word that names a directory."""
    words = iter(arguments)
    return [f"{word}={next(words, '')}" if word in WITH_VALUE else word for word in words]
