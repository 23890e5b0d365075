"""chance.json: by test function, what differs between two runs of the same kernel; and what makes the file.

`./kdrift chance FILE...` compares all runs of one kernel with each other, best in several orders: delayed ACKs, multipath hashes, global
rate limits, log lines that land in another test. Comparisons of kernels ignore these. Exit status: 0; 2 for an unusable file,
or if no kernel was run twice.
"""
import json
from collections import defaultdict
from functools import cache
from itertools import combinations
from pathlib import Path

from common.project import PROJECT
from report.changes import moves
from report.results import KernelResult

FILE = PROJECT / "chance.json"


class ChanceError(Exception):
    """The file cannot be used; the message says why in one line."""


def stored(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """What the file was made from, and by test function the topics (report.kinds) that move by themselves.  Raises ChanceError."""
    try:
        document = json.loads(path.read_bytes())
        return list(map(str, document["made_from"])), {function: list(map(str, topics)) for function, topics in document["moves"].items()}
    except OSError as error:
        raise ChanceError(f"{path.name}: {error.strerror}") from None
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise ChanceError(f"{path.name}: not written by ./kdrift chance") from None


@cache
def load(path: Path = FILE) -> dict[str, frozenset[str]]:
    """stored(), of which a comparison needs the topics alone.  Raises ChanceError."""
    return {function: frozenset(topics) for function, topics in stored(path)[1].items()}


def found_in(runs: list[list[KernelResult]]) -> tuple[list[str], dict[str, list[str]]]:
    """The kernels that were run more than once, with their number of runs, and by test function what differed between two of them."""
    by_version: dict[str, list[KernelResult]] = defaultdict(list)
    for kernels in runs:
        for kernel in kernels:
            by_version[kernel.version or kernel.release].append(kernel)
    again = {version: kernels for version, kernels in by_version.items() if len(kernels) > 1}
    topics: dict[str, set[str]] = defaultdict(set)
    for kernels in again.values():
        for one, other in combinations(kernels, 2):
            for move in moves(one, other, {}):
                topics[move.test.partition("[")[0]].add(move.topic)
    made_from = [f"{version}, {len(kernels)} runs" for version, kernels in sorted(again.items())]
    return made_from, {name: sorted(each) for name, each in sorted(topics.items())}
