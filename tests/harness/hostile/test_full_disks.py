"""A disk that is full, at whichever write: one line says so, the exit status is 3, and no temporary file is left.

The disk is a tmpfs of some size in namespaces of the command's own, in the place of the cache, of TMPDIR or of the report. Mirror and QEMU
are stand-ins (tests.harness.stand_ins): with room enough no kernel boots.
"""
import re

from tests.harness.sessions import CASES, Session
from tests.harness.stand_ins import CASE, RELEASES, SOON

SMALL_DISK = ["unshare", "-rm", "sh", "-c", r"""
mkdir -p "$DISK" && mount -t tmpfs -o size="$SIZE" tmpfs "$DISK" && {
    "$@"; status=$?
    find "$TMPDIR" "$DISK" -mindepth 1 \( -path "$TMPDIR/*" -o -name "*.part" \) -printf "left: %p\n"
    exit $status
}""", "sh"]
LOST, NOT_BOOTED = 3, 125
OLD, NEW = sorted(RELEASES)
KERNELS = [f"--kernel={OLD}", f"--kernel={NEW}", "--slots=1"]
TEST = "tests/tcp/test_advmss.py::test_advmss_of_a_route_caps_the_mss_that_a_new_connection_announces[ipv4]"
COMMANDS = {
    "pytest": ["pytest", "-q", "-c", "pytest.ini", f"{CASES}/{CASE}", "-k", "test_passes", *KERNELS],
    "validate": ["validate", "-q", "-c", "pytest.ini", f"{CASES}/{CASE}", "-k", "test_passes", *KERNELS],
    "run": ["run", *KERNELS, "--", "true"],
    "bisect": ["bisect", TEST, OLD, NEW, "--slots=1"],
    "explore": ["explore", OLD, NEW, "--slots=1"],
}
PLACES = ("cache", "tmp", "report")
SIZES = ("4k", "16k", "64k", "256k", "1m", "4m", "16m", "64m", "256m")
CASES_OF_ALL = [(command, place, size) for command in COMMANDS for place in PLACES for size in SIZES]
SOME = [*((command, "tmp", "4k") for command in COMMANDS), ("pytest", "cache", "16k"), ("explore", "cache", "16k"),
        ("bisect", "report", "4k"), ("validate", "report", "16k")]


class Command(Session):
    """Any command in the background."""

    def __init__(self, directory, words, **environment):
        super().__init__(directory, "", prefix=SMALL_DISK, **environment)
        at = words.index("--") if "--" in words else len(words)
        self.command = [*SMALL_DISK, "./kdrift", *words[:at], f"--report={self.report}", *words[at:]]


def pytest_generate_tests(metafunc):
    cases = CASES_OF_ALL if metafunc.config.option.disks else SOME
    metafunc.parametrize("command, place, size", cases)


def test_full_disk_is_one_line_with_the_same_status_in_all_commands(stand_ins, tmp_path, command, place, size):
    cache = tmp_path / "cache" if place == "cache" else stand_ins.cache
    disk = {"cache": cache, "tmp": tmp_path / "tmp", "report": tmp_path / "report"}[place]
    given = {**stand_ins.environment, "KDRIFT_CACHE": str(cache), "DISK": str(disk), "SIZE": size}
    with Command(tmp_path, COMMANDS[command], **given) as session:
        session.end(within=SOON)
    lines = [line for line in session.output.splitlines() if "no space left" in line.lower()]
    assert "left: " not in session.output and "INTERNALERROR" not in session.output
    if session.status == NOT_BOOTED:        # there was room for all but the report
        assert all(line == f"--report {disk}: No space left on device" for line in lines), lines
        return
    assert session.status == LOST, session.output
    words = {line[line.lower().index("no space left"):] for line in lines}
    assert len(words) == 1 and (str(disk) in lines[0] or "KDRIFT_CACHE" in lines[0]), session.output
    assert len([line for line in lines if not re.match(r"(kdrift: )?6\.\d+", line)]) <= 1, "it is said once, or once for each kernel"
