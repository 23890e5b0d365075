"""chance.json: what moves by itself between two runs of one kernel, by test function, and the command that makes it.

`./kdrift chance FILE...` compares all runs of one kernel with each other, best in several orders: delayed ACKs, multipath hashes, global
rate limits, lines of the log that land in another test. No comparison of kernels looks at these. Exit status: 0; 2 for a file
that cannot be used, or none of whose kernels was run twice.
"""
import argparse
import json
import sys
from collections import defaultdict
from functools import cache
from itertools import combinations
from pathlib import Path

from report.changes import moves
from report.reading import ResultsError, read
from report.results import KernelResult, write_whole

FILE = Path(__file__).parents[1] / "chance.json"
USAGE = 2                                   # exit status; see the README


class ChanceError(Exception):
    """The file cannot be used; one line says why."""


@cache
def load(path: Path = FILE) -> dict[str, frozenset[str]]:
    """By test function, the topics (report.kinds) that move by themselves.  Raises ChanceError."""
    try:
        found = json.loads(path.read_bytes())["moves"]
        return {function: frozenset(map(str, topics)) for function, topics in found.items()}
    except OSError as error:
        raise ChanceError(f"{path.name}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ChanceError(f"{path.name}: not made by ./kdrift chance") from None


def found_in(runs: list[list[KernelResult]]) -> tuple[list[str], dict[str, list[str]]]:
    """The kernels that were run more than once, with how often, and by test function what moved between two of their runs."""
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


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="kdrift chance", description="what moves by itself between runs of one kernel")
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="results.json of runs, best in several orders")
    parser.add_argument("--add", action="store_true", help="keep what the file already says")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, default=FILE, help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        made_from, topics = found_in([read(path)[1] for path in options.files])
        if not made_from:
            raise ChanceError("no kernel was run twice in these files")
        if options.add:
            document = json.loads(options.output.read_bytes())
            made_from = sorted({*document["made_from"], *made_from})
            before = document["moves"]
            topics = {name: sorted({*topics.get(name, ()), *before.get(name, ())}) for name in sorted({*topics, *before})}
        write_whole(options.output, json.dumps({"made_from": made_from, "moves": topics}, indent=1) + "\n")
    except (ResultsError, ChanceError) as error:
        print(f"kdrift: {error}", file=sys.stderr)
        return USAGE
    except OSError as error:
        print(f"kdrift: {options.output}: {error.strerror}", file=sys.stderr)
        return USAGE
    print(f"{options.output}: {sum(map(len, topics.values()))} moves of {len(topics)} tests, from {'; '.join(made_from)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
