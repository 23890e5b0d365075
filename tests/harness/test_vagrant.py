"""The Vagrantfile, and what --vagrant does with machines; the real ones are in whole/test_boxes.py."""

import os
import subprocess

import pytest

from tests.harness.sessions import KERNEL, ROOT, one_line, run

CASE, USAGE, NOT_BOOTED = "test_outcomes.py", 2, 125
# Vagrant as far as the suite uses it: states in files, every call in a log, and an address at which nobody listens.
STAND_IN = """\
#!/bin/sh
cd "$STAND_IN"
echo "$*" >> calls
case $1 in
  status) for name in debian12 debian13 fedora; do echo "1,$name,state,$(cat $name)"; done;;
  up) grep -q broken $2 && echo "no such box" >&2 && exit 1; echo running > $2;;
  halt) echo shutoff > $2;;
  destroy) echo not_created > $3;;
  ssh-config) printf 'Host %s\\n HostName 127.0.0.1\\n Port 1\\n' $3;;
esac
"""


@pytest.fixture
def vagrant(tmp_path):
    """Runs a session with the stand-in, the machines being in these states; the session and the calls but for questions."""
    def start(*words, kernels=(), **states):
        place = tmp_path / "stand-in"
        place.mkdir()
        (place / "calls").touch()
        (place / "vagrant").write_text(STAND_IN)
        (place / "vagrant").chmod(0o755)
        for name in ("debian12", "debian13", "fedora"):
            (place / name).write_text(states.get(name, "not_created"))
        path = f"{place}:{os.environ['PATH']}"
        session = run(tmp_path, CASE, *words, kernels=kernels, PATH=path, STAND_IN=str(place))
        calls = (place / "calls").read_text().splitlines()
        return session, [call for call in calls if call.split()[0] in ("up", "halt", "destroy")]
    return start


def test_vagrantfile_is_valid(tmp_path):
    environment = {**os.environ, "VAGRANT_HOME": str(tmp_path)}
    done = subprocess.run(["vagrant", "validate", "--ignore-provider"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_machines_are_left_as_they_were(vagrant):
    """Without names: those that exist; one that is up is used as it is, one that is not is halted again."""
    session, calls = vagrant("--vagrant", debian12="running", debian13="shutoff")
    assert session.status == NOT_BOOTED
    assert [kernel["label"] for kernel in session.results["kernels"]] == ["debian12", "debian13"]
    assert calls == ["up debian13", "halt debian13"]


def test_machine_that_does_not_come_up_keeps_its_place(vagrant):
    session, calls = vagrant("--vagrant", debian12="broken", debian13="running")
    assert session.status == NOT_BOOTED
    errors = {kernel["label"]: kernel["error"] for kernel in session.results["kernels"]}
    assert errors["debian12"] == "vagrant up debian12: no such box" and "Connection refused" in errors["debian13"]
    assert calls == ["up debian12"]


@pytest.mark.parametrize("words, last", [((), "halt fedora"), (("--vagrant-destroy",), "destroy --force fedora")])
def test_machine_that_did_not_exist_is_halted_or_destroyed(vagrant, words, last):
    session, calls = vagrant(*words, "--vagrant=fedora")
    assert calls == ["up fedora", last]
    assert "Connection refused" in session.results["kernels"][0]["error"]


@pytest.mark.parametrize("words, kernels, reason", [
    (["--vagrant=debian21"], [], "no machine debian21 in the Vagrantfile, which has debian12, debian13, fedora"),
    (["--vagrant=fedora"], [KERNEL], "fedora already exists and would keep its kernel: run `vagrant destroy`, or omit --kernel"),
    (["--vagrant=debian12"], [KERNEL, KERNEL], "--vagrant boots its machines with one --kernel at a time"),
], ids=["unknown", "exists", "two kernels"])
def test_what_cannot_be_is_one_line(vagrant, words, kernels, reason):
    session, calls = vagrant(*words, kernels=kernels, fedora="running")
    assert session.status == USAGE
    one_line(session.output, reason)
    assert calls == []
