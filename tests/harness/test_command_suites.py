"""`./kdrift run`: packetdrill's scripts as tasks, modules that a machine lacks, a fast processor."""
import lzma
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from cli import command as front, commandline
from command.modules import add_modules
from command.packetdrill import UNFIT, packetdrill_tasks, program_of, scripts
from command.results import run_results
from command.session import CommandRun, Task
from common.errors import SpecError
from fixtures.options import add_options
from kernels.cache import Cache
from kernels.modules import plain_name
from kernels.spec import resolve
from session.runs import KernelRun
from tests.harness.sessions import KERNEL
from vm.command import ERRORS
from vm.exact import FAST, SECTION, SHIFT, count_from_zero
from vm.image import tool
from vm.job import Events, Job
from vm.machine import Machine
from vm.state import knobs_of
from vm.wide import WIDE


@pytest.fixture
def tree(tmp_path):
    for name in ("tcp/close/a.pkt", "tcp/close/b-v6.pkt", "tcp/sack/c-v4.pkt", "tcp/common/defaults.sh", "packetdrill/packetdrill"):
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("")
    (tmp_path / "packetdrill/packetdrill").chmod(0o755)
    return tmp_path


def test_each_script_of_packetdrill_runs_in_the_forms_that_it_is_for(tree):
    tasks = packetdrill_tasks(tree, [], program_of(tree, None), tree / "tar", None)
    assert [task.name for task in tasks] == [
        "tcp/close/a.pkt ipv4", "tcp/close/a.pkt ipv6", "tcp/close/a.pkt ipv4-mapped-v6", "tcp/close/b-v6.pkt ipv6",
        "tcp/sack/c-v4.pkt ipv4", "tcp/sack/c-v4.pkt ipv4-mapped-v6"]
    assert {(task.words[0], task.cwd, task.timeout) for task in tasks[:3]} == {
        (str(tree / "packetdrill/packetdrill"), str(tree / "tcp/close"), 180)}
    assert "--ip_version=ipv4-mapped-ipv6" in tasks[2].words and tasks[2].words[-1] == "a.pkt"


def test_scripts_are_chosen_by_file_and_by_directory(tree):
    assert [path.name for path in scripts(tree, ["tcp/sack", "tcp/close/a.pkt", "tcp/sack/c-v4.pkt"])] == ["c-v4.pkt", "a.pkt"]


@pytest.mark.parametrize("take, complaint", [
    (lambda tree: scripts(tree, ["tcp/absent"]), "tcp/absent"), (lambda tree: scripts(tree / "tcp/sack", ["../close"]), "../close"),
    (lambda tree: scripts(tree / "none", []), "no such directory"), (lambda tree: program_of(tree, tree / "tcp"), "no program"),
    (lambda tree: program_of(tree / "tcp/sack", None), "build it"),
])
def test_what_is_no_script_or_program_is_refused(tree, take, complaint, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SpecError, match=complaint):
        take(tree)


@pytest.mark.parametrize("said, outcome", [(UNFIT, "skipped"), ("timing error", "failed")])
def test_a_program_that_does_not_fit_the_kernel_judges_nothing(tmp_path, said, outcome):
    task = Task("a.pkt ipv4", ("p",), "/", tmp_path, unfit=(UNFIT, "packetdrill is newer than the kernel"))
    run = CommandRun(KernelRun("0", "6.12", "6.12"), task, "", Events(tmp_path / "events"), tmp_path / "kept")
    run.output[ERRORS] = f"{said} at code.c line 148\n".encode()
    run.outcome = {"status": 134, "seconds": 1.0, "idle": 0.5}
    result, = run_results(run, selftests=True)
    assert result.outcome == outcome
    assert ("newer than the kernel" in result.message) == (outcome == "skipped")


def test_two_suites_at_a_time_are_refused(tree, capsys):
    assert front.run(commandline.parse(["run", "--kselftest", str(tree), "--packetdrill", str(tree)])) == 2
    assert "one after the other" in capsys.readouterr().err


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """A kernel of few modules: two that every machine has, and three that none has, of which one needs the next."""
    with Cache() as cache:
        real = resolve(KERNEL, cache)
        place = tmp_path_factory.mktemp("modules") / real.release
        for name in ("net/ipv4/udp_tunnel", "net/ipv6/ip6_udp_tunnel", "net/tipc/tipc", "net/tipc/tipc_diag", "net/rds/rds"):
            file = place / f"kernel/{name}.ko.xz"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(lzma.compress(lzma.decompress((real.modules / f"kernel/{name}.ko.xz").read_bytes()), preset=0))
        (place / "modules.builtin").write_text("kernel/net/unix/unix-diag.ko\n")
        return replace(real, modules=place)


def with_modules(tmp_path, kernel, *names):
    with tarfile.open(tmp_path / "files.tar", "w") as tar:
        tar.add(__file__, "own")
    add_modules(tmp_path / "files.tar", tmp_path / "more.tar", kernel, names)
    with tarfile.open(tmp_path / "more.tar") as tar:
        return tar.getnames(), tar.extractfile(f"lib/modules/{kernel.release}/modules.dep").read().decode()


def test_a_module_is_sent_with_those_that_it_needs_and_a_listing_of_all(tmp_path, kernel):
    names, listing = with_modules(tmp_path, kernel, "tipc-diag", "unix_diag")
    assert {plain_name(name) for name in names if ".ko" in name} == {"tipc", "tipc_diag"}
    assert names[0] == "own"
    assert "udp_tunnel.ko:" in listing and "tipc_diag.ko: kernel/net/tipc/tipc.ko" in listing and "rds" not in listing


def test_a_module_that_a_kernel_lacks_is_refused(tmp_path, kernel):
    with pytest.raises(SpecError, match="--module nonsense: .* has no such module"):
        with_modules(tmp_path, kernel, "nonsense")


def test_a_fast_machine_has_a_clock_and_a_saved_state_of_its_own(tmp_path):
    machine = Machine(Path("bzImage"), Path("initrd"), [], tmp_path, "virtual", "tcg", shift=FAST)
    assert "-icount shift=0,sleep=off" in " ".join(machine.arguments())
    job = Job(None, "virtual", "tcg", 1, False, [], 1, "", "", "", 0, "")
    assert knobs_of(replace(job, shift=FAST)) != knobs_of(job)


@pytest.mark.parametrize("shift", [SHIFT, FAST])
def test_the_clock_of_a_saved_machine_counts_as_its_processor_does(tmp_path, shift):
    state = tmp_path / "devices"
    state.write_bytes(SECTION + bytes(8) + (5).to_bytes(8, "big"))
    count_from_zero(state, shift)
    assert state.read_bytes() == SECTION + (5 << shift).to_bytes(8, "big") + bytes(8)


def test_a_boot_without_saved_state_has_one_name_in_all_commands():
    added = []
    add_options(lambda name, **options: added.append((name, options.get("dest"))))
    assert ("--fresh", "fresh_boot") in added
    assert commandline.parse(["run", "--fresh", "--", "ls"]).fresh_boot


def test_programs_that_are_known_by_a_link_are_in_the_machine():
    """Also those that packages bring under other names (update-alternatives(1))."""
    wanted = {"awk", "iptables", "ip6tables", "ip6tables-save", "nc"}
    assert wanted <= {name for name in WIDE.tools if tool(name)}
