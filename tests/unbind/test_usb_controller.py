"""A USB host controller is taken from its driver and given back, by unbind and bind in sysfs
(Documentation/ABI/testing/sysfs-bus-pci).

Runs with `--device qemu-xhci --device usb-tablet` and a kernel that has USB, which Debian's cloud flavour does not.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

from netns import HostLacks, MissingFeature, at_least, eventually
from netns.observe.kmsg import ERROR, KernelLog

DRIVER = Path("/sys/bus/pci/drivers/xhci_hcd")
USB = Path("/sys/bus/usb/devices")
# USB 3.0 host controller (PCI Code and ID Assignment Specification).
XHCI_CLASS = "0x0c0330"
# What the kernel says where something is wrong, whatever level it says it at.
COMPLAINT = re.compile(r"WARNING:|BUG:|Call Trace|Unable to handle|blocked for more than")


@pytest.fixture
def controller():
    """The name of a controller that the driver has, with all that is plugged in recognized; given back in the end."""
    found = [device.name for device in Path("/sys/bus/pci/devices").glob("*")
             if (device / "class").read_text().strip() == XHCI_CLASS]
    if "KDRIFT_CLOCK" not in os.environ or not found:
        raise HostLacks("a USB host controller of the machine's own: runs with --kernel and --device qemu-xhci")
    if not DRIVER.exists() and subprocess.run(["modprobe", "xhci_pci"], capture_output=True).returncode:
        raise MissingFeature("xhci_pci: this kernel has no such module")
    name = found[0]
    eventually("devices recognized at the controller", lambda: len(plugged(name)), at_least(3), within=10)
    yield name
    if not (DRIVER / name).exists():
        bind(name)


def plugged(name):
    """The devices of the controller's buses: a root hub for USB 2 and one for USB 3, and what is plugged in."""
    return {device.name for device in USB.glob("*") if name in os.readlink(device) and ":" not in device.name}


def unbind(name):
    (DRIVER / "unbind").write_text(name)


def bind(name):
    (DRIVER / "bind").write_text(name)


def processor_time():
    """{thread: seconds of processor time} of all threads, those of the kernel included, but for this process's
    (Documentation/scheduler/sched-stats.rst, /proc/<pid>/schedstat)."""
    return {
        thread: int((thread / "schedstat").read_text().split()[0]) / 1e9
        for thread in Path("/proc").glob("[0-9]*/task/*") if thread.parts[2] != str(os.getpid())
    }


@pytest.mark.parametrize("times", [1, 10])
def test_controller_and_what_is_plugged_in_come_back(controller, times):
    """Without the driver its buses are gone; with it all that was there is recognized anew."""
    before = plugged(controller)
    for _ in range(times):
        unbind(controller)
        assert not (DRIVER / controller).exists() and plugged(controller) == set()
        bind(controller)
        assert (DRIVER / controller).exists()
        eventually("devices recognized at the controller", lambda: plugged(controller), before, within=10)


def test_nothing_is_wrong_in_the_kernels_log(controller):
    """No message of level error or above, and none that tells of a warning or a hang, whatever its level."""
    before = plugged(controller)
    with KernelLog() as log:
        unbind(controller)
        bind(controller)
        eventually("devices recognized at the controller", lambda: plugged(controller), before, within=10)
        records = list(log.records())
    assert any("USB bus" in record.text for record in records)
    assert [record for record in records if record.level <= ERROR or COMPLAINT.search(record.text)] == []


@pytest.mark.virtual_clock("a minute in which nothing else runs")
@pytest.mark.parametrize("bound", [True, False])
def test_nothing_is_busy_afterwards(controller, clock, measure, bound):
    """In the minute after it no process and no kernel thread uses a thousandth of the processor."""
    before = plugged(controller)
    unbind(controller)
    if bound:
        bind(controller)
        eventually("devices recognized at the controller", lambda: plugged(controller), before, within=10)
    began = processor_time()
    clock.sleep(60)
    used = {thread: seconds - began.get(thread, 0) for thread, seconds in processor_time().items()}
    busiest = max(used, key=used.get)
    # The kernel counts in hundredths of a second (proc(5), USER_HZ).
    assert measure("unbind.busiest_thread", used[busiest], "s", tolerance=0.01) < 0.06, (busiest / "comm").read_text()
