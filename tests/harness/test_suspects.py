"""Functions that changed from one kernel to another, in small kernels made by hand."""
import gzip
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

import cli.suspects
from cli import commandline
from common.project import PROJECT
from common.status import Exit
from kernels.cache import Cache
from kernels.extract import Kernel
from kernels.spec import resolve
from report.results import KernelResult, TestResult
from report.verdict import compare_all
from rerun.bench import Seen
from rerun.conversation import Gone
from sensitivity.mutants import Symbol
from session.runs import KernelRun
from session.suspected import ByCode, Recorders, name_suspects
from suspects import recorded, recording
from suspects.code import kernel_code, module_code
from suspects.compare import CHANGED, GONE, MOVED, NEW, SCOPE, CannotCompare, Difference, FunctionName, compare_code, read_image
from suspects.elf import NoElf
from suspects.kallsyms import NoSymbols
from suspects.places import source_files
from suspects.recorded import Recorded
from suspects.told import Executed, difference_line, suspect_lines
from tests.harness.made_kernels import BEFORE, BEHIND, PLACED, Made, MadeKernel, call, function, load, module, text_of

NUMBER = b"\xb8%c\0\0\0"                    # mov eax, number
FIELD = b"\x8b\x87%c\1\0\0"                 # mov eax, [rdi + 0x100 + number]
FIRST, LAST = function("socket_first", warns="net/socket.c"), function("socket_last", warns="net/socket.c")
DRIVER, PCI = function("a_driver", warns="drivers/dummy.c"), function("pci_last", warns="arch/x86/pci/direct.c")


def made(*inside: Made, **others: object) -> MadeKernel:
    """A kernel with these functions in net/socket.c, each of which may use `there`, `count` and `text`."""
    settings = {"variables": {"count": 4}, "strings": {"text": "a text"}, **others}
    return MadeKernel([DRIVER, function("there", warns="net/ipv4/ping.c"), FIRST, *inside, LAST, PCI], **settings)  # type: ignore[arg-type]


def kernel(directory: Path, given: MadeKernel, name: str, modules: dict[str, bytes] | None = None) -> Kernel:
    for place, data in (modules or {}).items():
        path = directory / name / "modules/kernel" / f"{place}.ko"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    image = given.image(directory / f"{name}.bzImage")
    return Kernel(name, given.release, None, None, image, directory / name / "modules" if modules else None, name)


def compared(directory: Path, old: MadeKernel, new: MadeKernel, old_modules: dict[str, bytes] | None = None,
             new_modules: dict[str, bytes] | None = None) -> Difference:
    return compare_code(kernel(directory, old, "old", old_modules), kernel(directory, new, "new", new_modules))


def how(found: Difference) -> dict[str, str]:
    return {str(name): each for name, each in found.how.items()}


@pytest.mark.parametrize("form", [BEHIND, BEFORE, PLACED])
def test_symbols_are_read_from_each_form_of_kallsyms(form: str) -> None:
    code = kernel_code(made(form=form).vmlinux())
    assert [each.name for each in code.functions] == ["a_driver", "there", "socket_first", "socket_last", "pci_last"]
    assert code.name_of(code.functions[2].address + 4) == "socket_first+0x4"


def test_kernel_without_symbols_is_refused_in_one_line(tmp_path: Path) -> None:
    data = made().vmlinux().replace(b"0\x001\x002\x003\0", b"0\0001\0002\0004\0")
    with pytest.raises(NoSymbols, match=r"no kallsyms, or in a form that is not known$"):
        kernel_code(data)


def test_function_that_is_only_linked_elsewhere_is_no_difference(tmp_path: Path) -> None:
    user = function("user", call("there"), load("count"), text_of("text"), NUMBER % 1)
    old = made(user)
    new = MadeKernel([DRIVER, function("added", NUMBER % 7 * 9, warns="drivers/dummy.c"), *old.functions[1:]],
                     variables={"more": 64, "count": 4}, strings={"other": "another text", "text": "a text"})
    assert compared(tmp_path, old, new).how == {}


@pytest.mark.parametrize("other", [
    pytest.param((call("there"), load("count"), text_of("text"), NUMBER % 2), id="number"),
    pytest.param((call("socket_first"), load("count"), text_of("text"), NUMBER % 1), id="callee"),
    pytest.param((call("there"), load("limit"), text_of("text"), NUMBER % 1), id="variable"),
    pytest.param((call("there"), load("count"), text_of("words"), NUMBER % 1), id="string"),
    pytest.param((call("there"), load("count"), text_of("text")), id="length"),
])
def test_function_with_other_code_is_changed(tmp_path: Path, other: tuple[list[bytes | str], ...]) -> None:
    more = {"variables": {"count": 4, "limit": 4}, "strings": {"text": "a text", "words": "more words"}}
    user = function("user", call("there"), load("count"), text_of("text"), NUMBER % 1)
    found = compared(tmp_path, made(user, **more), made(function("user", *other), **more))
    assert how(found) == {"user": CHANGED}
    assert found.places[FunctionName("", "user")] == "net/socket.c"


def test_padding_and_the_compilers_suffix_make_no_difference(tmp_path: Path) -> None:
    inside = b"\x74\x05"                    # je, over what follows
    old = made(function("user.constprop.0", inside, NUMBER % 1))
    new = made(function("user.constprop.1", b"\x0f\x1f\x40\x00", inside, NUMBER % 1, b"\x90"))
    assert compared(tmp_path, old, new).how == {}


def test_new_and_gone_functions_are_named(tmp_path: Path) -> None:
    assert how(compared(tmp_path, made(function("before")), made(function("after")))) == {"before": GONE, "after": NEW}


def test_offset_that_moved_in_many_functions_is_a_structures_layout(tmp_path: Path) -> None:
    def kernels(number: int) -> MadeKernel:
        return made(*(function(f"user_{each}", FIELD % number) for each in range(5)), function("alone", FIELD % (number + 7)))

    assert how(compared(tmp_path, kernels(1), kernels(9))) == {**{f"user_{each}": MOVED for each in range(5)}, "alone": CHANGED}


@pytest.mark.parametrize(("percpu", "expected"), [({"start": 0, "statistics": 0x3F40}, {}),
                                                  ({"start": 0, "others": 0x3F40}, {"user": CHANGED})])
def test_variable_of_each_processor_may_move(tmp_path: Path, percpu: dict[str, int], expected: dict[str, str]) -> None:
    def kernels(offset: int, percpu: dict[str, int]) -> MadeKernel:
        return made(function("user", b"\xb8" + offset.to_bytes(4, "little")), percpu=percpu)

    old = kernels(0x2F00, {"start": 0, "statistics": 0x2F00})
    assert how(compared(tmp_path, old, kernels(0x3F40, percpu))) == expected


def test_file_of_a_function_is_that_of_the_warnings_around_it() -> None:
    inside = [function("one"), function("ping", warns="net/ipv4/ping.c"), function("either"), function("tcp", warns="net/ipv4/tcp.c"),
              function("any"), function("ping6", warns="net/ipv6/ping.c"), function("before_pci")]
    code = kernel_code(MadeKernel([DRIVER, function("before_net"), FIRST, function("sure"), LAST, *inside, PCI]).vmlinux())
    places = source_files(code)
    assert {each.name: places[each.address] for each in code.functions} == {
        "a_driver": "drivers/dummy.c", "before_net": "", "socket_first": "net/socket.c", "sure": "net/socket.c",
        "socket_last": "net/socket.c", "one": "net/", "ping": "net/ipv4/ping.c", "either": "net/ipv4/", "tcp": "net/ipv4/tcp.c",
        "any": "net/", "ping6": "net/ipv6/ping.c", "before_pci": "", "pci_last": "arch/x86/pci/direct.c"}


def test_only_functions_of_the_scope_are_compared(tmp_path: Path) -> None:
    def kernels(number: int) -> MadeKernel:
        return MadeKernel([function("acct", NUMBER % number, warns="kernel/acct.c"),
                           function("lost", NUMBER % number, warns="kernel/audit.c"), function("rules", NUMBER % number),
                           function("filter", warns="kernel/auditfilter.c"), *made().functions])

    assert how(compared(tmp_path, kernels(1), kernels(2))) == {"lost": CHANGED, "rules": CHANGED}


def test_modules_are_compared_by_the_names_in_their_relocations(tmp_path: Path) -> None:
    same = function("count_all", call("kfree"), call("local"), text_of("words"))
    old = module([function("local"), same, function("user", call("kfree"))], {"words": "a text"})
    new = module([function("local", NUMBER % 1 * 5), same, function("user", call("kvfree"))], {"more": "more", "words": "a text"})
    place = "net/netfilter/nf_conn-count"
    found = compared(tmp_path, made(), made(), {place: old, "drivers/a": old}, {place: new, "drivers/a": new})
    assert how(found) == {"local [nf_conn_count]": CHANGED, "user [nf_conn_count]": CHANGED}
    assert found.places[FunctionName("nf_conn_count", "user")] == place


def test_damaged_module_is_named_and_the_others_are_compared(tmp_path: Path) -> None:
    whole = module([function("user", NUMBER % 1)])
    found = compared(tmp_path, made(), made(), {"net/a": whole, "net/b": whole[:200]},
                     {"net/a": module([function("user", NUMBER % 2)]), "net/b": whole})
    assert how(found) == {"user [a]": CHANGED}
    assert [each.partition(":")[0] for each in found.unread] == ["net/b"]


@pytest.mark.parametrize("size", [0, 64, 4000])
def test_truncated_module_is_an_error_of_one_line(size: int) -> None:
    data = module([function("user", call("kfree")), function("other", text_of("words"))], {"words": "x" * 4000})
    with pytest.raises(NoElf, match=r"^[^\n]+$"):
        module_code(data[:size])


def test_section_that_ends_behind_the_file_is_an_error() -> None:
    data = bytearray(module([function("user")]))
    (headers,) = struct.unpack_from("<Q", data, 40)
    struct.pack_into("<Q", data, headers + 64 + 32, 1 << 20)        # sh_size of the first section
    with pytest.raises(NoElf, match="truncated"):
        module_code(bytes(data))


def test_kernels_of_two_compilers_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(CannotCompare, match=r"gcc-12 .* and gcc-14 .*$"):
        compared(tmp_path, made(), made(compiler="gcc-14 (Debian 14.2.0-1) 14.2.0"))


def test_kernels_that_were_optimized_when_linked_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(CannotCompare, match="LTO"):
        compared(tmp_path, made(), made(function("user.llvm.123")))


def test_kernel_that_names_no_files_is_not_compared(tmp_path: Path) -> None:
    with pytest.raises(CannotCompare, match="CONFIG_DEBUG_BUGVERBOSE"):
        read_image(kernel(tmp_path, MadeKernel([function("alone")]), "old"))


def test_functions_that_passing_tests_execute_are_counted_and_the_rarest_suspects_come_first() -> None:
    often, once, never, same = (FunctionName("", name) for name in ("often", "once", "never", "same"))
    found = Difference({often: CHANGED, once: NEW, never: CHANGED, FunctionName("", "gone"): GONE, FunctionName("", "moved"): MOVED},
                       {each: "net/a.c" for each in (often, once, never, same)})
    executed = Executed.by(found, [{often, once, same}, {often}])
    assert executed.line() == "of 3 functions changed in net/ and kernel/audit*, 2 were executed by passing tests, 1 by none"
    assert executed.by_none() == [never]
    assert executed.suspects({often, once, never, same}) == [(never, 0), (once, 1), (often, 2)]
    assert suspect_lines(executed.suspects({often, once}), found.places, {once: "only on 6.12"}, most=1) == [
        "once, net/a.c: executed by 1 passing test; only on 6.12", "and 1 more"]
    assert difference_line(found, SCOPE).startswith("4 functions in net/ and kernel/audit*: 2 changed, 1 new, 1 gone; in 1 more")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one test, and a cache of its own."""
    monkeypatch.setenv("KDRIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(recorded, "PROJECT", tmp_path)
    (tmp_path / "netns").mkdir()
    (tmp_path / "test_a.py").write_text("one")
    return tmp_path


def test_what_a_test_executes_is_kept_until_its_sources_change(project: Path) -> None:
    where, test = kernel(project, made(), "old"), "test_a.py::test_it"
    first, name = Recorded(where), FunctionName("ip_vs", "ip_vs_in")
    first.add({test: ("passed", [name]), "test_b.py::test": ("failed", [])})
    again = Recorded(where)
    assert set(again.functions(test)) == {name}
    assert again.outcomes() == {test: "passed", "test_b.py::test": "failed"}
    assert again.missing([test, "test_a.py::test_new"]) == ["test_a.py::test_new"]
    assert Recorded(kernel(project, made(), "other")).missing([test]) == [test]
    (project / "test_a.py").write_text("two")
    assert Recorded(where).missing([test]) == [test]
    (project / "test_a.py").write_text("one")
    (project / "netns/a.py").write_text("all tests import it")
    assert Recorded(where).missing([test]) == [test]


@pytest.mark.parametrize("damage", [b"", b"no gzip", gzip.compress(b"no JSON"), gzip.compress(b'{"tests": {"a": [1]}, "functions": []}'),
                                    gzip.compress(b'{"tests": {"a": 1}, "functions": []}'),
                                    gzip.compress(b'{"tests": {"a": ["", "passed", [5]]}, "functions": []}')],
                         ids=["empty", "no gzip", "no JSON", "short row", "no row", "no such function"])
def test_damaged_record_counts_as_none(project: Path, damage: bytes) -> None:
    where = kernel(project, made(), "old")
    Recorded(where).add({"test_a.py::test": ("passed", [])})
    Recorded(where).path.write_bytes(damage)
    assert Recorded(where).missing(["test_a.py::test"]) == ["test_a.py::test"]


class Chosen:
    """A test, as far as its selection looks at it."""

    def __init__(self, nodeid: str) -> None:
        self.nodeid = nodeid

    def get_closest_marker(self, name: str) -> object:
        return name == "last" and "leftovers" in self.nodeid or None


@pytest.mark.parametrize(("which", "expected"), [("first", ["user", "unknown", "leftovers", "other"]),
                                                 ("only", ["user", "unknown", "leftovers"])])
def test_tests_that_execute_changed_functions_run_first_or_alone(project: Path, which: str, expected: list[str]) -> None:
    old, new = (kernel(project, made(function("user", NUMBER % number)), str(number)) for number in (1, 2))
    Recorded(old).add({"other": ("passed", [FunctionName("", "there")]), "user": ("passed", [FunctionName("", "user")])})
    said: list[str] = []
    runs = [KernelRun(str(number), each.spec, each.spec, each) for number, each in enumerate((old, new))]
    items = [Chosen(name) for name in ("other", "user", "unknown", "leftovers")]
    deselected: list[Chosen] = []
    config = SimpleNamespace(hook=SimpleNamespace(pytest_deselected=lambda items: deselected.extend(items)))
    ByCode(runs, which, said.append).pytest_collection_modifyitems(config, items)       # type: ignore[arg-type]  # as far as it looks
    assert [item.nodeid for item in items] == expected
    assert said == ["--changed: 1 function changed; of 4 tests 1 execute one, 2 have no record and count as if they did"]


def test_all_tests_run_if_a_comparison_says_nothing(project: Path) -> None:
    old, new = kernel(project, made(), "old"), kernel(project, made(compiler="gcc-14"), "new")
    said: list[str] = []
    items = [Chosen("other")]
    runs = [KernelRun(str(number), each.spec, each.spec, each) for number, each in enumerate((old, new))]
    ByCode(runs, "only", said.append).pytest_collection_modifyitems(None, items)        # type: ignore[arg-type]  # as far as it looks
    assert [item.nodeid for item in items] == ["other"]
    assert said[0].endswith("all tests run")


def suspects(*words: str) -> int:
    options = commandline.parse(["suspects", *words])
    return cli.suspects.run(options)


def test_command_lists_what_changed_by_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = (str(made(function("user", NUMBER % number)).image(project / f"{number}.bzImage")) for number in (1, 2))
    assert suspects(old, new) == Exit.OK
    assert capsys.readouterr().out.splitlines() == [
        "4 functions in net/ and kernel/audit*: 1 changed, 0 new, 0 gone; in 0 more only fields of structures moved",
        "  changed user, net/socket.c"]
    assert suspects(old, new, "--in", "drivers/") == Exit.OK
    assert capsys.readouterr().out.startswith("1 function in drivers/: 0 changed")


@pytest.mark.parametrize(("second", "words", "status", "line"), [
    (made(function("user", NUMBER % 1)), [], Exit.USAGE, "are the same kernel"),
    (made(compiler="gcc-14"), [], Exit.NOTHING_JUDGED, "come from two compilers"),
    (made(), ["tests/nowhere.py"], Exit.USAGE, "No such file or directory"),
    (made(), ["tests/tcp/test_advmss.py::test_of_nothing"], Exit.USAGE, "the file has no test_of_nothing"),
    (made(), ["tests/tcp/test_advmss.py", "--device", "nothing"], Exit.USAGE, "nothing"),
])
def test_what_cannot_be_compared_is_one_line(project: Path, capsys: pytest.CaptureFixture[str], second: MadeKernel, words: list[str],
                                             status: Exit, line: str) -> None:
    old = made(function("user", NUMBER % 1)).image(project / "old.bzImage")
    assert suspects(str(old), str(second.image(project / "new.bzImage")), *words) == status
    captured = capsys.readouterr()
    assert line in captured.err
    assert captured.err.count("\n") == 1


def test_damaged_image_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = made().image(project / "old.bzImage"), made(function("user")).image(project / "new.bzImage")
    data = bytearray(new.read_bytes())
    data[0x480:0x4C0] = bytes(0x40)
    new.write_bytes(data)
    assert suspects(str(old), str(new)) == Exit.NOTHING_JUDGED
    assert "damaged" in capsys.readouterr().err


class Bench:
    """Stands for the saved machine: its only module is at an address of its own, and each test enters what it is told to."""

    made = 0
    watched: ClassVar[set[str]] = set()
    entered: ClassVar[dict[str, list[int]]] = {}
    trouble: Exception | None = None

    def __init__(self, kernel: Kernel, directory: Path, state: Path, arguments: list[str], devices: object) -> None:
        self.tests = arguments[1:]
        Bench.made += 1

    def warmed(self) -> tuple[str, dict[int, object]]:
        if self.trouble:
            raise self.trouble
        return "ffffffffc0100000 t ip_vs_in.isra.0\t[ip_vs]\nffffffffc0200000 t ext4_init\t[ext4]\n", {}

    def coverage(self, functions: Sequence[Symbol], tests: Sequence[int], again: int) -> Iterator[tuple[int, Seen, set[int]]]:
        assert again == 1
        Bench.watched = {each.name for each in functions}
        for index in tests:
            yield index, Seen("passed"), set(self.entered[self.tests[index]])

    def end(self) -> None:
        pass


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> type[Bench]:
    monkeypatch.setattr(recording, "MutantBench", Bench)
    monkeypatch.setattr(Bench, "made", 0)
    monkeypatch.setattr(Bench, "trouble", None)
    return Bench


def test_what_tests_enter_is_recorded_by_name_once(project: Path, bench: type[Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    where = kernel(project, made(function("user")), "old", {"net/netfilter/ipvs/ip_vs": module([function("ip_vs_in")])})
    user = next(each for each in read_image(where).code.functions if each.name == "user").address
    monkeypatch.setattr(bench, "entered", {"test_a.py::one": [user + 4, 0xFFFFFFFFC0100000], "test_a.py::two": []})
    for _ in range(2):
        found = recording.record_executed(where, ["test_a.py::one", "test_a.py::two"], project / "machines", slots=2)
        assert {str(each) for each in found.functions("test_a.py::one")} == {"user", "ip_vs_in [ip_vs]"}
        assert not found.functions("test_a.py::two")
        assert found.outcomes() == {"test_a.py::one": "passed", "test_a.py::two": "passed"}
    assert bench.made == 1
    assert bench.watched == {"there", "socket_first", "user", "socket_last", "ip_vs_in.isra.0"}


def test_machine_that_is_lost_records_nothing(project: Path, bench: type[Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "trouble", Gone("the kernel panicked"))
    where = kernel(project, made(), "old")
    with pytest.raises(recording.NotRecorded, match=r"^6.12.1-made: the kernel panicked$"):
        recording.record_executed(where, ["test_a.py::one"], project / "machines")
    assert recorded.Recorded(where).missing(["test_a.py::one"])


def test_verdict_counts_what_passing_tests_execute_and_names_suspects(project: Path, bench: type[Bench],
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = (kernel(project, made(function("user", NUMBER % number), function("never", NUMBER % number)), str(number))
                for number in (1, 2))
    user = next(each for each in read_image(new).code.functions if each.name == "user").address
    monkeypatch.setattr(bench, "entered", {"test_a.py::bad": [user], "test_a.py::good": []})
    results = [KernelResult(each.spec, each.spec, each.release, tests=[
        TestResult("test_a.py::bad", outcome=outcome), TestResult("test_a.py::good", outcome="passed")])
        for each, outcome in ((old, "passed"), (new, "failed"))]
    comparisons = compare_all(results)
    text = name_suspects(comparisons, {"1": old, "2": new}, Recorders(1), lambda line: None)
    assert comparisons[0].code == [
        "of 2 functions changed in net/ and kernel/audit*, 0 were executed by passing tests, 2 by none",
        "test_a.py::bad: 1 suspect", "  user, net/socket.c: executed by 0 passing tests"]
    assert "  code        of 2 functions changed" in "\n".join(comparisons[0].lines())
    assert "- `never`, net/socket.c" in text


@pytest.mark.parametrize("words", [["--suspects"], ["--changed", "only"]])
def test_options_about_two_kernels_refuse_one(words: list[str]) -> None:
    done = subprocess.run([sys.executable, PROJECT / "kdrift", "pytest", "--offline", *words, "tests/tcp/test_advmss.py"],
                          capture_output=True, text=True)
    assert done.returncode == Exit.USAGE
    assert "needs the files of an old and a new kernel" in done.stderr


@pytest.fixture(scope="module")
def debian() -> Iterator[Kernel]:
    with Cache() as cache:
        yield resolve("6.12", cache)


def test_debians_kernel_has_its_functions_where_their_files_are(debian: Kernel) -> None:
    places: dict[str, str] = {}
    image = read_image(debian)
    for each in image.code.functions:
        places.setdefault(each.name, image.places.get(each.address, ""))
    assert places["tcp_v4_rcv"].startswith("net/ipv4/")
    assert places["audit_receive_msg"].startswith("kernel/audit")
    assert places["vfs_read"].startswith("fs/")
    assert "gcc-" in image.compiler
    assert not image.lto


def test_what_tests_execute_in_a_machine_is_recorded_for_each(debian: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "default_root", lambda: tmp_path)
    segments, raw = "tests/tcp/test_advmss.py", "tests/rawbuf/test_hdrincl.py::test_hdrincl_with_invalid_ihl_is_refused[4]"
    found = recording.record_executed(debian, [segments, raw], tmp_path / "machines")
    assert set(found.outcomes().values()) == {"passed"}
    by_test = {test.partition("::")[0]: {str(each) for each in found.functions(test)} for test in found.outcomes()}
    # The machine makes a connection, to a closed port, before each run (vm.guest.connect_once()).
    assert "tcp_create_openreq_child" in by_test[segments] - by_test["tests/rawbuf/test_hdrincl.py"]
    assert "raw_sendmsg" in by_test["tests/rawbuf/test_hdrincl.py"] - by_test[segments]
