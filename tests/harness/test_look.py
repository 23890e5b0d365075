"""The look at a kernel before its first test: one line for what no test can do without, names for what some are skipped for."""

from types import SimpleNamespace

import pytest

from vm import look, state
from vm.job import Events
from vm.machine import MEMORY_MB
from vm.qemu import VMError

RELEASE = "6.12.0-kdrift-test"


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """The guest's modules directory, which is not there yet."""
    place = tmp_path / "modules" / RELEASE
    monkeypatch.setattr(look, "modules", lambda: place)
    return place


def add(modules, name, text):
    (modules / name).parent.mkdir(parents=True, exist_ok=True)
    (modules / name).write_text(text)


def test_without_modules_it_says_where_they_go(modules):
    assert str(look.unfit("veth", "veth", "VETH")) == \
        "the kernel has no veth (CONFIG_VETH): no test can run; no modules were given: append ,modules=DIR"


def test_a_kernel_built_without_it_is_told_from_one_without_modules(modules):
    add(modules, "modules.dep", "kernel/drivers/net/tun.ko:\n")
    assert str(look.unfit("veth", "veth", "VETH")).endswith("no test can run; neither built in nor among the modules")


def test_modules_of_another_release_are_named(modules):
    add(modules, "modules.dep", "kernel/drivers/net/veth.ko:\n")
    add(modules, "kernel/drivers/net/veth.ko", "\0vermagic=6.1.0-9-amd64 SMP mod_unload\0")
    assert str(look.unfit("veth", "veth", "VETH")) == f"the modules are for 6.1.0-9-amd64, but the kernel is {RELEASE}: no test can run"


def test_what_is_listed_is_there_whatever_its_spelling(modules):
    """Module names have an underscore where files may have a hyphen: modules.dep(5)."""
    add(modules, "modules.dep",
        "".join(f"kernel/net/{name.replace('_', '-')}.ko.zst:\n" for name in look.OPTIONAL if name not in ("tun", "ip_vs")))
    add(modules, "modules.builtin", "kernel/drivers/net/tun.ko\n")
    assert look.lacks() == ["ip_vs (CONFIG_IP_VS)"]


class Ended(SimpleNamespace):
    """A machine whose guest has ended before it was ready, with these lines on its console."""

    accel, process, memory_mb = "tcg", SimpleNamespace(returncode=0), MEMORY_MB
    start = wait = event = lambda *_: None


def booted(tmp_path, *console, size=1):
    (tmp_path / "initrd").touch()
    with (tmp_path / "initrd").open("r+b") as initrd:
        initrd.truncate(size << 20)
    with pytest.raises(VMError) as failure:
        state.boot(Ended(initrd=tmp_path / "initrd", console_tail=lambda lines: list(console)), 1)
    return str(failure.value)


def test_the_guests_own_reason_is_the_only_line(tmp_path):
    console = "[    1.0] Run /init", "kdrift: the kernel has no veth", "[    1.1] reboot: Restarting system"
    assert booted(tmp_path, *console) == "the kernel has no veth"


def test_a_kernel_that_does_not_boot_shows_its_last_words(tmp_path):
    assert booted(tmp_path, "first", "[    1.0] Kernel panic - not syncing: VFS", "last").splitlines() == [
        "the kernel did not boot; its last messages:", "[    1.0] Kernel panic - not syncing: VFS", "last"]


def test_a_boot_image_too_large_for_the_memory_is_not_tried(tmp_path):
    """Unstripped modules take hundreds of megabytes; QEMU would say `initrd is too large`, or the kernel run out of memory."""
    line = booted(tmp_path, size=MEMORY_MB)
    assert line.startswith(f"the boot image is {MEMORY_MB} MB") and "INSTALL_MOD_STRIP=1" in line and "\n" not in line


def test_what_it_lacks_is_a_note(tmp_path):
    events = Events(tmp_path / "events")
    state.note_missing_features([], events)
    state.note_missing_features(["ip_vs (CONFIG_IP_VS)", "tun (CONFIG_TUN)"], events)
    assert [event["note"] for event in events.read()] == [
        "the kernel has no ip_vs (CONFIG_IP_VS), tun (CONFIG_TUN): tests that need them are skipped"]
