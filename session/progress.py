"""Progress while kernels run: a line per kernel on a terminal; elsewhere a line per change, and one now and then."""
import threading
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from report.results import WORST

DESCRIPTIONS = {"waiting": "waiting for a slot", "image": "building the boot image", "booting": "booting (once, to save its state)",
                "importing": "importing the libraries (once, to save its state)", "sending": "copying files to the other machine",
                "restoring": "restoring the saved state", "running": "running"}

QUIET = 30                                  # seconds: CI systems take a job that prints nothing for one that hangs


def in_words(state: str) -> str:
    """What a machine in this state does."""
    return DESCRIPTIONS.get(state, state)


class Progress:
    """`state` says what a kernel's machine does, `left` how many tests it has still to run; their argument is the kernel's label."""

    def __init__(self, stream: TextIO, labels: Sequence[str], state: Callable[[str], str], left: Callable[[str], int], interactive: bool):
        self.outcomes: dict[str, dict[str, str]] = {label: {} for label in labels}      # the last one of each test
        self.current = dict.fromkeys(labels, "")
        self.said = dict.fromkeys(labels, "")
        self.state, self.left = state, left
        self.width = max((len(label) for label in labels), default=0)
        self.console = Console(file=stream, highlight=False)
        self.live = Live(self, console=self.console, refresh_per_second=4, transient=True) if interactive else None
        self.over = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Progress":
        if self.live:
            self.live.start()
        else:
            self.watcher.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.over.set()
        if self.live:
            self.live.stop()
        else:
            self.watcher.join()

    def test_done(self, label: str, test: str, outcome: str) -> None:
        self.outcomes[label][test] = outcome
        self.current[label] = test

    def counts(self, label: str) -> str:
        """How many tests had which outcome, or before the first one what its machine does."""
        outcomes = list(self.outcomes[label].values())
        return ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in WORST if outcome in outcomes) or in_words(self.state(label))

    def line(self, label: str, text: str) -> str:
        return f"{label:{self.width}}  {text}"

    def __rich__(self) -> Text:
        """Called by rich for every refresh."""
        lines = []
        for label in self.outcomes:
            test = self.current[label]
            text = self.counts(label) + (f"  {test.rpartition('/')[2]}" if test else "")
            lines.append(Text(self.line(label, text), no_wrap=True, overflow="ellipsis"))
        return Text("\n").join(lines)

    def _watch(self) -> None:
        last = time.monotonic()
        while not self.over.wait(0.3):
            if self.changes():
                last = time.monotonic()
            elif time.monotonic() - last > QUIET:
                self.sums()
                last = time.monotonic()

    def changes(self) -> bool:
        """Print a line for every kernel whose machine enters a new state; whether there was one."""
        changed = [label for label in self.outcomes if self.state(label) != self.said[label]]
        for label in changed:
            self.said[label] = self.state(label)
            self.console.print(self.line(label, in_words(self.said[label])))
        return bool(changed)

    def sums(self) -> None:
        """Print a line for every kernel: how many tests of how many it has run with which outcomes, or what its machine does."""
        for label, outcomes in self.outcomes.items():
            done = len(outcomes)
            tests = f"{done} of {done + self.left(label)} tests: " if done else ""
            self.console.print(self.line(label, tests + self.counts(label)))
