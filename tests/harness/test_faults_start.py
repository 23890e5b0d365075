"""What cannot start says why in one line, with an exit status of its own, and does not keep the other kernels from running."""

import errno
import shutil
import struct
import sys
from pathlib import Path

import pytest

from tests.harness.debian_archive import write_deb, write_image
from tests.harness.sessions import KERNEL, image_of, one_line, run
from vm.state import copy_memory

CASE, OPTIONS = "test_outcomes.py", ("-k", "test_passes")
PASSED = {"test_passes": "passed"}
USAGE, LOST, NOT_BOOTED = 2, 3, 125


def only_line(session):
    """The line of a session that ended before it began."""
    lines = [line for line in session.output.splitlines() if line]
    assert len(lines) == 1, session.output
    return lines[0]


def resetting_image(path):
    """A bzImage whose first instructions reset the machine, as a kernel does that panics before it has a console."""
    image = bytearray(write_image(path, "6.6.6-resets").read_bytes())
    image[0x200:0x202] = b"\xeb\x66"                            # jump over the header
    image[0x268:0x26d] = b"\xb0\xfe\xe6\x64\xf4"                # mov $0xfe, %al; out %al, $0x64; hlt
    struct.pack_into("<H", image, 0x206, 0x20F)                 # version of the boot protocol
    image[0x211] = 1                                            # loaded high
    struct.pack_into("<I", image, 0x22C, 0x7FFFFFFF)            # the highest address for the initramfs
    struct.pack_into("<I", image, 0x238, 2047)                  # the longest command line
    path.write_bytes(image)
    return path


@pytest.mark.parametrize("spec, reason", [
    ("six.twelve", "six.twelve"), ("/no/such/bzImage", "/no/such/bzImage"), (__file__, "kernel"),
])
def test_bad_specification_is_a_usage_error(tmp_path, spec, reason):
    session = run(tmp_path, CASE, kernels=[KERNEL, spec])
    assert session.status == USAGE
    assert reason in only_line(session)


def test_without_qemu_nothing_starts(tmp_path):
    (tmp_path / "programs").mkdir()
    session = run(tmp_path, CASE, program=[sys.executable, "-m", "cli"], PATH=str(tmp_path / "programs"))
    assert session.status == USAGE
    assert only_line(session) == "ERROR: qemu-system-x86_64 is not installed (Debian package: qemu-system-x86)"


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    """A good kernel beside a truncated package, a kernel that resets the machine, and one without its modules."""
    directory = tmp_path_factory.mktemp("failing")
    write_image(directory / "root/boot/vmlinuz-6.6.6", "6.6.6")
    package = write_deb(directory, "linux-image-6.6.6", "6.6.6-1", directory / "root")
    package.write_bytes(package.read_bytes()[:-2000])
    bare = Path(shutil.copy(image_of(KERNEL), directory / "bare"))
    return run(directory, CASE, *OPTIONS, kernels=[str(package), KERNEL, str(resetting_image(directory / "resets")), str(bare)])


def test_kernel_that_is_not_to_be_had_keeps_the_others(failing):
    assert failing.status == NOT_BOOTED
    assert failing.outcomes() == PASSED
    assert [kernel["label"] for kernel in failing.results["kernels"] if kernel["error"]] == [
        "linux-image-6.6.6_6.6.6-1_amd64.deb", "resets", "bare"]


def test_truncated_package_is_named(failing):
    name = "linux-image-6.6.6_6.6.6-1_amd64.deb"
    assert f"{name} is truncated or damaged (" in failing.results["kernels"][0]["error"]
    assert failing.outcomes(name) == {}


def test_kernel_that_resets_the_machine_did_not_boot(failing):
    assert failing.results["kernels"][2]["error"] == "the kernel did not boot and printed nothing"


def test_kernel_without_its_modules_is_one_line(failing):
    """6.12 has veth as a module; without it there is no topology, and each test would fail."""
    reason = "the kernel has no veth (CONFIG_VETH): no test can run; no modules were given: append ,modules=DIR"
    assert failing.results["kernels"][3]["error"] == reason
    one_line(failing.output.rpartition("- kernels -")[2], f"bare: {reason}")


ON_A_SMALL_DISK = ["unshare", "-rm", "sh", "-c",
                   'mount -t tmpfs -o size="$SIZE" tmpfs "$DISK" && '
                   '{ "$@"; status=$?; ls -A "$DISK/tmp" "$DISK"/kdrift-* 2>&-; exit $status; }', "sh"]


@pytest.mark.parametrize("size, reason", [("60m", "no space left for the cache"), ("450m", "no space left for a saved state: ")])
def test_full_cache_is_one_line(tmp_path, size, reason):
    """The first has no room for the boot image, the second none for the memory of a guest."""
    disk = tmp_path / "disk"
    disk.mkdir()
    spec = str(image_of(KERNEL))
    session = run(tmp_path, CASE, kernels=[spec], prefix=ON_A_SMALL_DISK, KDRIFT_CACHE=str(disk), DISK=str(disk), SIZE=size)

    assert session.status == LOST
    (kernel,) = session.results["kernels"]
    assert reason in kernel["error"]
    assert "\n" not in kernel["error"]
    one_line(session.output, reason)
    assert "tests by kernel" not in session.output


def test_full_disk_is_told_apart_when_a_saved_state_is_copied(tmp_path):
    (tmp_path / "ram").write_bytes(b"x")
    with pytest.raises(OSError) as failure:
        copy_memory(tmp_path / "ram", Path("/dev/full"))
    assert failure.value.errno == errno.ENOSPC


def test_full_temporary_directory_is_one_line(tmp_path):
    image_of(KERNEL)                        # or the first line would say that it is fetched
    disk = tmp_path / "tmp"
    session = run(tmp_path, CASE, prefix=ON_A_SMALL_DISK, DISK=str(disk), SIZE="64k")
    assert session.status == LOST
    assert session.output.splitlines()[0] == f"ERROR: {disk}: No space left on device"
