"""A /dev/kvm that exists and does not work: found out within a deadline, said in a line, and done without."""

import os
import shutil
from pathlib import Path

import pytest

from tests.harness.sessions import KERNEL, one_line, run
from vm.machine import Machine
from vm.qemu import kvm_trouble

PRESENT = "/dev/null"                       # a device that everybody may read and write
BEHAVIOURS = {
    "hangs": "exec sleep 600",
    "ends": "exit 1",
    "runs": "for word; do case $word in *path=*) printf S > ${word##*path=};; esac; done; exec sleep 600",
}


def fake_qemu(directory, behaviour):
    """A QEMU that does this when it is to use KVM, and else is the real one; its directory, for PATH."""
    program = directory / "qemu-system-x86_64"
    real = shutil.which("qemu-system-x86_64")
    program.write_text(f'#!/bin/sh\ncase "$*" in *"-accel kvm"*) {BEHAVIOURS[behaviour]};; esac\nexec {real} "$@"\n')
    program.chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


@pytest.mark.parametrize("behaviour, trouble", [
    ("hangs", f"{PRESENT} does not run a guest within 0.5 s"), ("ends", f"{PRESENT} does not run a guest"), ("runs", None),
])
def test_kvm_counts_as_working_when_the_firmware_runs(tmp_path, monkeypatch, behaviour, trouble):
    monkeypatch.setenv("PATH", fake_qemu(tmp_path, behaviour))
    assert kvm_trouble(PRESENT, 5 if behaviour == "runs" else 0.5) == trouble


def test_missing_device_is_no_kvm(tmp_path):
    assert kvm_trouble(str(tmp_path / "kvm")) == f"cannot open {tmp_path}/kvm"


@pytest.mark.parametrize("clock, accel, expected", [
    ("real", "kvm", "-accel kvm -cpu host"), ("real", "tcg", "-accel tcg,"), ("virtual", "kvm", "-accel tcg,"),
])
def test_only_the_real_clock_uses_kvm(tmp_path, clock, accel, expected):
    arguments = Machine(Path("bzImage"), Path("initrd"), [], tmp_path, clock, accel).arguments()
    assert expected in " ".join(arguments)


def test_a_device_is_part_of_what_a_saved_state_fits(tmp_path):
    plain, more = ([Path("bzImage"), Path("initrd"), [], tmp_path, "virtual", "tcg", devices] for devices in ([], ["qemu-xhci"]))
    assert "-device qemu-xhci" in " ".join(Machine(*more).arguments())
    assert "-device" not in Machine(*plain).arguments()


@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="needs a /dev/kvm that may be opened")
def test_session_falls_back_to_emulation_and_says_so(tmp_path):
    session = run(tmp_path, "test_outcomes.py", "-k", "test_passes", "--clock=real", PATH=fake_qemu(tmp_path, "hangs"))

    assert session.status == 0
    one_line(session.output, "/dev/kvm does not run a guest within 8 s: falling back to emulation")
    (kernel,) = session.results["kernels"]
    assert (kernel["label"], kernel["clock"], kernel["accel"]) == (KERNEL, "real", "tcg")
