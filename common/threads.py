"""Threads that do one work for many, side by side."""
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
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
