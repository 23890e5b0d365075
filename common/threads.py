"""Threads that do one work for many: side by side, or ahead of who needs it."""
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from typing import TypeVar

Key = TypeVar("Key")
Answer = TypeVar("Answer")


def side_by_side(work: Callable[[Key], Answer], keys: Sequence[Key], threads: int, end: Callable[[], None]) -> Iterator[tuple[Key, Answer]]:
    """The answers as they come. After an exception, of `work` or in here, no more work begins, and `end` ends what runs: the pool waits
    for its threads."""
    with ThreadPoolExecutor(threads) as pool:
        futures = {pool.submit(work, key): key for key in keys}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            end()
            raise


class Ahead:
    """Does one work for names that will be wanted, one after the other, in a thread of its own. `work` says itself what is wrong to
    whoever needs the name; errors of these classes are not noticed here."""

    def __init__(self, work: Callable[[str], object], unnoticed: tuple[type[Exception], ...]) -> None:
        self._work, self._unnoticed = work, unnoticed
        self._thread: threading.Thread | None = None
        self._wanted: list[str] = []

    def want(self, names: list[str]) -> None:
        """These, instead of what was wanted before."""
        self._wanted = names
        if names and not (self._thread and self._thread.is_alive()):
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while self._wanted:
            with suppress(*self._unnoticed):
                self._work(self._wanted.pop(0))
