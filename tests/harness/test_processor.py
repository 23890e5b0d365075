"""The processor that guests have: it does what this machine's own does, and one that does not judges no kernel."""

import os
import shutil
from contextlib import contextmanager

import pytest
from execnet import XSpec
from execnet.gateway import Gateway
from execnet.gateway_base import get_execmodel

from common.project import PROJECT
from kernels.cache import Cache
from kernels.spec import resolve
from tests.harness.sessions import KERNEL, one_line, run
from vm import processor
from vm.image import boot_image, python_command
from vm.job import Events, Job
from vm.line import LineIO
from vm.machine import WITHOUT, Machine
from vm.payload import pack_sources
from vm.qemu import qemu_version
from vm.state import kernel_parameters, load, saved_state

NOT_BOOTED = 125
PATIENCE = 240                              # seconds of wall time; an idle host takes three
# cmpxchg8b has the same defect as cmpxchg16b in QEMU until 7.2. No 64-bit kernel executes it.
KNOWN_WRONG = "cmpxchg8b"
SERVER = """
import kdrift_processor as processor
channel.gateway._io.take_all()
runner = processor.Runner(processor.cases())
channel.send((sorted(processor.features()), processor.rdtsc_goes_back()))
channel.send(processor.survey(runner, set(channel.receive())))
forms = {form.name: form for form in processor.forms()}
for name, how in channel:
    channel.send(runner.run(forms[name], how))
"""


@contextmanager
def guest(directory):
    """A channel to the tests' process in a machine of KERNEL, restored from its saved state."""
    with Cache() as cache:
        kernel = resolve(KERNEL, cache)
        sources = pack_sources(cache)
        job = Job(kernel, "virtual", "tcg", 1, False, [], 120, python_command(), str(PROJECT), str(directory), os.getpid(), "")
        with Machine(kernel.vmlinuz, boot_image(cache, kernel), kernel_parameters(kernel), directory, "virtual", "tcg") as machine:
            events = Events(directory / "events")
            load(machine, lambda: saved_state(machine, cache, job, events), cache, job, events)
            machine.order(sources, directory="/", cwd=str(PROJECT), id="guest", env={}, seed=1)
            gateway = Gateway(LineIO(machine.line, get_execmodel("thread")), XSpec("popen//id=guest"))
            yield gateway.remote_exec(SERVER)


@pytest.fixture(scope="module")
def surveys(tmp_path_factory):
    """What this machine's processor does and what a guest's does of all that both have, and the differences in words."""
    with guest(tmp_path_factory.mktemp("vm")) as channel:
        features, back = channel.receive(PATIENCE)
        both = processor.features() & set(features)
        channel.send(sorted(both))
        runner = processor.Runner(processor.cases())
        own, theirs = processor.survey(runner, both), channel.receive(PATIENCE)
        forms = {form.name: form for form in processor.forms()}
        different = []
        for key in own:
            if own[key] != theirs[key]:
                name, _, how = key.rpartition(" after ")
                channel.send((name, how))
                different.append(f"{key}: " + first_difference(runner, forms[name], how, channel.receive(PATIENCE)))
    return set(features), back, own, theirs, different


def first_difference(runner, form, how, theirs):
    """The first case that two processors do otherwise, in words."""
    own, size = runner.run(form, how), processor.STATE.size
    at = next(at for at in range(0, len(own), size) if own[at:at + size] != theirs[at:at + size])
    before, right, wrong = (processor.STATE.unpack(table[at:at + size]) for table in (runner.cases, own, theirs))
    names = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "flags", "r8", "r9", "memory")
    return ", ".join(f"{name} {a if name == 'memory' else hex(a)} and not {b if name == 'memory' else hex(b)}"
                     for name, a, b in zip(names, wrong, right, strict=True) if a != b) + f" of {[hex(x) for x in before[:9]]}"


def test_an_emulated_processor_lacks_what_qemu_gets_wrong(surveys):
    features, *_ = surveys
    assert "popcnt" in features and "cx16" not in features


def test_instructions_do_what_they_do_on_this_machine(surveys):
    _features, _back, own, theirs, different = surveys
    assert own.keys() == theirs.keys() and len(own) > 1000
    assert [line for line in different if KNOWN_WRONG not in line] == []


def test_the_time_stamp_counter_goes_forward(surveys):
    assert not surveys[1] and not processor.rdtsc_goes_back()


def test_this_machines_processor_passes():
    assert processor.probe() is None


def test_an_emulator_that_is_wrong_is_refused_at_the_first_start(tmp_path):
    """QEMU until 7.2 is wrong about cmpxchg16b; of later ones the session would pass."""
    if tuple(map(int, qemu_version().split(".")[:2])) > (7, 2):
        pytest.skip("this QEMU is right about all that it emulates")
    program = tmp_path / "qemu-system-x86_64"
    program.write_text(f'#!/bin/bash\nexec {shutil.which("qemu-system-x86_64")} "${{@//{WITHOUT}/{WITHOUT.replace("-", "+")}}}"\n')
    program.chmod(0o755)
    session = run(tmp_path, "test_outcomes.py", "-k", "test_passes", "--fresh", PATH=f"{tmp_path}:{os.environ['PATH']}")

    assert session.status == NOT_BOOTED
    (kernel,) = session.results["kernels"]
    assert kernel["error"].startswith(f"QEMU {qemu_version()} executes cmpxchg16b wrongly: EFLAGS is 0x")
    assert "\n" not in kernel["error"] and not kernel["tests"]
    one_line(session.output, f"QEMU {qemu_version()} executes cmpxchg16b wrongly: ")
