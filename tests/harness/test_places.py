"""A session from places whose names have spaces, commas, quotes and letters beyond ASCII."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.project import PROJECT
from kernels.cache import default_root
from tests.harness.sessions import KERNEL, OTHER, run

ODD = "a b,c'd/ü"


@contextmanager
def odd_place(name: str) -> Iterator[Path]:
    """A directory of this name, with the usual cache under another name, so that nothing is fetched or built for it."""
    with tempfile.TemporaryDirectory() as short:        # the path of a socket has room for 107 bytes
        place = Path(short, name)
        place.mkdir(parents=True)
        (place / "cache").symlink_to(default_root())
        yield place


def test_cache_temporary_directory_and_report_may_be_anywhere():
    with odd_place(ODD) as place:
        session = run(place, "test_outcomes.py", "-k", "test_passes", KDRIFT_CACHE=str(place / "cache"))
        assert session.outcomes(KERNEL) == {"test_passes": "passed"}
        assert session.status == 0


def verdict_of(*words):
    """What validate says, with these words after its name, in an empty directory elsewhere: its exit status, the line of the verdict, and
    the outcomes in ./out."""
    with odd_place("a b,c/ü") as place:
        here = place / "empty"
        here.mkdir()
        done = subprocess.run([PROJECT / "kdrift", "validate", *words], cwd=here, env={**os.environ, "KDRIFT_CACHE": str(place / "cache")},
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert sorted(path.name for path in here.iterdir()) == ["out"], done.stdout
        [line] = [line for line in done.stdout.splitlines() if line.startswith(f"{OTHER} -> {KERNEL}: ")]
        kernels = json.loads((here / "out/results.json").read_text())["kernels"]
        return done.returncode, line, [(kernel["label"], test["id"], test["outcome"]) for kernel in kernels for test in kernel["tests"]]


def verdicts(keyword):
    """The same of the tests that the keyword chooses, with the options around the kernels and before them."""
    report, kernels, tests = ["--report", "out"], [OTHER, KERNEL], ["-k", keyword]
    return verdict_of(*report, *kernels, *tests), verdict_of(*report, *tests, *kernels)


@pytest.mark.timeout(1200)
def test_place_and_order_of_the_options_change_no_verdict():
    """The cache is in "a b,c/ü". tests/harness/docs does it with all keepalive tests."""
    (status, line, outcomes), other = verdicts("documented_keepalive_defaults")
    assert other == (status, line, outcomes)
    assert (status, [(label, outcome) for label, _test, outcome in outcomes]) == (0, [(OTHER, "passed"), (KERNEL, "passed")])
