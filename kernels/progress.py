"""Progress for the user: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

LINE_EVERY = 5.0  # seconds between plain lines of one transfer


class Reporter:
    """Writes notes and transfers to `stream` (default: standard error)."""

    def __init__(self, stream: TextIO | None = None):
        self.stream = stream or sys.stderr
        self._said: set[str] = set()
        self.console = Console(file=self.stream, highlight=False, soft_wrap=True)

    def say(self, line: str) -> None:
        """Write one line."""
        self.console.print(line, markup=False)

    def say_once(self, line: str) -> None:
        """Write one line, unless this reporter has written it before."""
        if line not in self._said:
            self._said.add(line)
            self.say(line)

    @contextlib.contextmanager
    def transfer(self, what: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Show a transfer of `total` bytes (None: unknown); yields a function that takes the bytes received so far."""
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                       TimeRemainingColumn())
            with Progress(*columns, console=self.console, transient=True) as bar:
                task = bar.add_task(what, total=total)
                yield lambda done: bar.update(task, completed=done)
        else:
            self.say(f"{what}{f' ({megabytes(total)})' if total else ''} ...")
            yield self._lines(what, total)

    def _lines(self, what: str, total: int | None) -> Callable[[int], None]:
        began = said = time.monotonic()
        first: int | None = None

        def update(done: int) -> None:
            nonlocal said, first
            first = done if first is None else first
            now = time.monotonic()
            if now - said < LINE_EVERY:
                return
            said = now
            speed = (done - first) / (now - began)
            line = f"{what}: {megabytes(done)}" + (f" of {megabytes(total)}" if total else "")
            line += f", {megabytes(speed)}/s"
            if total and speed:
                line += f", {max(0, total - done) / speed:.0f} s left"
            self.say(line)

        return update


def megabytes(size: float) -> str:
    """A size in bytes as decimal megabytes, as apt prints it."""
    return f"{size / 1e6:.1f} MB"
