"""`./kdrift bisect --bug-report DIR`: the folder of a bug report on what was found, with the text for a mail in it."""
import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bisection.question import FAILS
from report.results import TestResult
from reproduce.folder import add_text, folder_name
from reproduce.leaks import of_this_machine


@dataclass(frozen=True)
class Neighbours:
    """The two kernels between which the change is, by specification: the test fails on one and not on the other. `label` is for the
    name of the folder."""

    failing: str
    passing: str
    label: str


def neighbours(ends: Sequence[TestResult | None], pair: Sequence[tuple[str, str]]) -> Neighbours | None:
    """Of specification and label of both kernels, which fails: as on the end of its side; the old one if both do. None if neither does."""
    for end, (spec, label), (other, _) in zip(ends, pair, reversed(pair), strict=True):
        if end and end.outcome in FAILS:
            return Neighbours(spec, other, label)
    return None


def write_folder_of(options: argparse.Namespace, test: str, found: Neighbours, texts: Mapping[str, str]) -> str:
    """Run the test once more as ./kdrift pytest --bug-report does, and add the texts, by the names of their files.  Returns what became
    of it, in a line."""
    words = [test, f"--kernel={found.failing}={found.label}", f"--good={found.passing}", f"--bug-report={options.bug_report}",
             "--tables=all", "--slots=1", *(f"--device={device}" for device in options.devices),
             *(f"--{name}" for name in ("offline", "allow-unverified") if getattr(options, name.replace("-", "_"))),
             *([f"--mirror={options.mirror}"] if options.mirror else [])]
    done = subprocess.run([sys.executable, "-m", "cli", "pytest", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    directory: Path = options.bug_report / folder_name(test, found.label)
    if not directory.is_dir():
        said = (done.stdout + done.stderr).strip().splitlines()
        return f"--bug-report: no folder: {said[-1] if said else 'no output'}"
    unfinished = [add_text(directory, name, text, of_this_machine()) for name, text in texts.items()]
    line = next((line for line in done.stdout.splitlines() if line.startswith(f"{directory}: ")), str(directory))
    return f"{directory}: {unfinished[-1]}" if unfinished[-1] else line
