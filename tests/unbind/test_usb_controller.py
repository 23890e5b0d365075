"""A USB host controller is unbound from its driver and bound again, by unbind and bind in sysfs
(Documentation/ABI/testing/sysfs-bus-pci).

Needs `--device qemu-xhci --device usb-tablet` and a kernel with USB; Debian's cloud flavour has none.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

from fixtures.machine import own_machine
from netns import MissingFeature, MissingOnHost, at_least, eventually
from netns.observe.kmsg import ERROR, KernelLog

DRIVER = Path("/sys/bus/pci/drivers/xhci_hcd")
USB = Path("/sys/bus/usb/devices")
# USB 3.0 host controller (PCI Code and ID Assignment Specification).
XHCI_CLASS = "0x0c0330"
# Reports of a kernel bug or a hang, at any log level.
COMPLAINT = re.compile(r"WARNING:|BUG:|Call Trace|Unable to handle|blocked for more than")


@pytest.fixture
def controller():
    """The name of a bound controller whose devices are enumerated; bound again at the end."""
    found = [device.name for device in Path("/sys/bus/pci/devices").glob("*")
             if (device / "class").read_text().strip() == XHCI_CLASS]
    if not own_machine() or not found:
        raise MissingOnHost("needs a USB host controller of its own: run it with --kernel and --device qemu-xhci")
    if not DRIVER.exists() and subprocess.run(["modprobe", "xhci_pci"], capture_output=True).returncode:
        raise MissingFeature("the kernel has no module xhci_pci")
    name = found[0]
    eventually("USB devices enumerated on the controller", lambda: len(plugged(name)), at_least(3), within=10)
    yield name
    if not (DRIVER / name).exists():
        bind(name)


def plugged(name):
    """The devices on the controller's buses: a root hub each for USB 2 and USB 3, and what is plugged in."""
    return {device.name for device in USB.glob("*") if name in os.readlink(device) and ":" not in device.name}


def unbind(name):
    (DRIVER / "unbind").write_text(name)


def bind(name):
    (DRIVER / "bind").write_text(name)


def processor_time():
    """{thread: seconds of CPU time} of all threads, kernel threads included, except this process's
    (Documentation/scheduler/sched-stats.rst, /proc/<pid>/schedstat)."""
    return {
        thread: int((thread / "schedstat").read_text().split()[0]) / 1e9
        for thread in Path("/proc").glob("[0-9]*/task/*") if thread.parts[2] != str(os.getpid())
    }


@pytest.mark.parametrize("times", [1, 10])
def test_bind_brings_back_the_controller_and_its_devices(controller, times):
    """unbind removes its buses; bind enumerates the same devices again."""
    before = plugged(controller)
    for _ in range(times):
        unbind(controller)
        assert not (DRIVER / controller).exists() and plugged(controller) == set()
        bind(controller)
        assert (DRIVER / controller).exists()
        eventually("USB devices enumerated on the controller", lambda: plugged(controller), before, within=10)


def test_unbind_and_bind_log_no_error_or_warning(controller):
    """No message of level error or above, and no warning or hang report at any level."""
    before = plugged(controller)
    with KernelLog() as log:
        unbind(controller)
        bind(controller)
        eventually("USB devices enumerated on the controller", lambda: plugged(controller), before, within=10)
        records = list(log.records())
    assert any("USB bus" in record.text for record in records)
    assert [record for record in records if record.level <= ERROR or COMPLAINT.search(record.text)] == []


@pytest.mark.virtual_clock("measures an idle minute")
@pytest.mark.parametrize("bound", [True, False])
def test_no_thread_is_busy_after_unbind_or_bind(controller, clock, measure, bound):
    """In the minute after it every process and kernel thread uses less than a thousandth of the CPU."""
    before = plugged(controller)
    unbind(controller)
    if bound:
        bind(controller)
        eventually("USB devices enumerated on the controller", lambda: plugged(controller), before, within=10)
    began = processor_time()
    clock.sleep(60)
    used = {thread: seconds - began.get(thread, 0) for thread, seconds in processor_time().items()}
    busiest = max(used, key=used.get)
    # The kernel counts in hundredths of a second (proc(5), USER_HZ).
    assert measure("unbind.busiest_thread", used[busiest], "s", tolerance=0.01) < 0.06, (busiest / "comm").read_text()
