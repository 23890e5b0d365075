"""The suite on whole machines: Debian 12 and 13 from packages, brought up by Vagrant.  `./kdrift selftest --vagrant` runs this."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hosts import boxes
from kernels.cache import Cache
from kernels.spec import resolve

ROOT = Path(__file__).parents[3]
NAMES = list(boxes.RELEASES)
KERNEL = "6.12"
pytestmark = pytest.mark.timeout(1800)      # the first test has all of it to wait for
# What is typed, but for the names of the boxes; in namespaces, which end with it.
SCRIPT = """\
set -e
{ for name in $NAMES; do vagrant box add --name kdrift/$name "$BOXES/$name.box"; done; vagrant up $NAMES; } >&2
"$PYTHON" -m cli pytest --vagrant -k keepalive --report "$REPORT/installed"
vagrant status --machine-readable > "$REPORT/after"
vagrant destroy -f $NAMES >&2
"$PYTHON" -m cli pytest --vagrant debian12 --vagrant-destroy --kernel "$KERNEL" --offline -k test_answered_probe --report "$REPORT/other"
vagrant status --machine-readable > "$REPORT/end"
"""


@pytest.fixture(scope="module")
def made():
    """Both boxes, from the cache or made now."""
    with Cache() as cache, ThreadPoolExecutor() as pool:
        yield dict(zip(NAMES, pool.map(lambda name: boxes.cached(cache, name), NAMES), strict=True))


@pytest.fixture(scope="module")
def trial(made, tmp_path_factory):
    """Both machines up, the keepalive family on both, both destroyed; then one with a kernel that it does not have."""
    directory = tmp_path_factory.mktemp("trial")
    with Cache() as cache:
        release = resolve(KERNEL, cache).release
    for name, path in made.items():
        (directory / f"{name}.box").symlink_to(path)
    environment = {**os.environ, "NAMES": " ".join(NAMES), "BOXES": str(directory), "REPORT": str(directory),
                   "PYTHON": sys.executable, "KERNEL": KERNEL, **{f"KDRIFT_BOX_{name.upper()}": f"kdrift/{name}" for name in NAMES}}
    status = subprocess.run([sys.executable, "-m", "hosts.private_libvirt", "sh", "-c", SCRIPT], cwd=ROOT, env=environment).returncode
    assert status == 0
    return directory, release


def kernels(report):
    return json.loads((report / "results.json").read_text())["kernels"]


def test_keepalive_passes_on_both(trial):
    directory, _release = trial
    found = kernels(directory / "installed")
    assert [kernel["label"] for kernel in found] == NAMES
    assert [kernel["error"] for kernel in found] == [None, None]
    for kernel, version in zip(found, ("6.1.", "6.12."), strict=True):
        outcomes = {test["outcome"] for test in kernel["tests"]}
        assert kernel["release"].startswith(version) and outcomes <= {"passed", "skipped", "known"} and len(kernel["tests"]) > 50


def test_machines_that_were_up_stay_up(trial):
    assert states(trial[0] / "after") == {name: "running" for name in NAMES}


def test_machine_boots_another_kernel(trial):
    directory, release = trial
    (kernel,) = kernels(directory / "other")
    assert kernel["release"] == release
    assert {test["outcome"] for test in kernel["tests"]} == {"passed"}


def test_nothing_is_left(trial):
    assert states(trial[0] / "end") == {name: "not_created" for name in NAMES}


def states(file):
    rows = [line.split(",") for line in file.read_text().splitlines()]
    return {row[1]: row[3] for row in rows if row[2] == "state" and row[1] in NAMES}
