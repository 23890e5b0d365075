"""The manifests of tests, from a separate process: pytest cannot collect within a session.

    python -m reproduce.describe TEST...        prints {"test": manifest or reason, ...} as JSON
"""
import json
import subprocess
import sys
from collections.abc import Sequence

from common.project import PROJECT
from reproduce.collect import OUTSIDE, CannotExport, Manifest, collect, describe_all, is_outside


def describe_elsewhere(words: Sequence[str]) -> dict[str, Manifest | str]:
    """For each test that pytest finds for these words, or of all without a word, its manifest, or why it has none.

    Raises CannotExport if pytest finds none.
    """
    outside: dict[str, Manifest | str] = {word: OUTSIDE for word in words if is_outside(word)}
    words = [word for word in words if word not in outside]
    if outside and not words:
        return outside
    done = subprocess.run([sys.executable, "-m", "reproduce.describe", *words], cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        raise CannotExport((done.stderr.strip().splitlines() or ["pytest exited without a message"])[-1])
    found = json.loads(done.stdout.splitlines()[-1])
    return outside | {test: Manifest(**each) if isinstance(each, dict) else each for test, each in found.items()}


def main(tests: list[str]) -> None:
    cases, failed = describe_all(collect(tests))
    print("\n" + json.dumps({case.id: case.as_dict() for case in cases} | failed))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except CannotExport as error:
        sys.exit(str(error))
