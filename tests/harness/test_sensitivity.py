"""The parts of `./kdrift sensitivity` that need no machine, and its early end."""
import argparse
import signal
import threading
import tomllib
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest

from cli.commandline import GUARDS
from common.errors import SpecError
from common.status import Exit
from rerun.bench import Seen
from rerun.conversation import Gone
from sensitivity.mutants import NOP, Mutant, Symbol, mutants, read_symbols
from sensitivity.prepared import Prepared
from sensitivity.score import Ledger, Verdict, checked, noticed, score
from sensitivity.study import Study, spread
from tests.harness.sessions import KERNEL, Session

LOST = pytest.raises(Gone, match="killed by SIGSEGV")
FUNCTION = Symbol("f", 0x1000, 0x40)
CALLEE = 0x2000


def broken(code: str) -> list[tuple[str, str]]:
    return [(each.kind, each.new.hex()) for each in mutants(FUNCTION, bytes.fromhex(code), {CALLEE: "g", CALLEE + 16: "__fentry__"})]


@pytest.mark.parametrize("code, kind, new", [
    ("7405", "condition", "7505"),                      # je
    ("0f8500010000", "condition", "0f8400010000"),      # jne, far
    ("83f805", "comparison", "83f806"),                 # cmp eax, 5
    ("b801000000", "constant", "b800000000"),           # mov eax, 1
    ("b8983a0000", "constant", "b8981a0000"),          # mov eax, 15000
    ("b891ffffff", "constant", "b8d1ffffff"),           # mov eax, -111
    ("83e0fd", "constant", "83e0ff"),                   # and eax, ~2
    ("a804", "constant", "a800"),                       # test al, 4
    ("48c7c790740282", "constant", "48c7c798740282"),   # mov rdi, an address of the kernel
    ("e8fb0f0000", "call", NOP.hex()),                  # call g
])
def test_each_kind_of_instruction_is_broken_in_its_way(code, kind, new):
    assert broken(code) == [(kind, new)]


@pytest.mark.parametrize("code", ["e80b100000", "4883ec08", "c3", "89c8"])      # call __fentry__; sub rsp, 8; ret; mov eax, ecx
def test_what_is_no_decision_of_the_function_is_left_alone(code):
    assert broken(code) == []


def test_functions_are_found_with_their_copies_in_a_list_of_symbols():
    text = "1020 t g\n1000 T f\n1010 t f.isra.0\n1010 t alias\n2000 d f\n3000 t f.cold\t[module]\n3040 t last\t[module]\n"
    found, names = read_symbols(text, {"f"})
    assert [(each.name, each.address, each.size, each.module) for each in found] == [
        ("f", 0x1000, 0x10, ""), ("f.isra.0", 0x1010, 0x10, ""), ("f.cold", 0x3000, 0x40, "module")]
    assert names[0x1020] == "g" and 0x2000 not in names


def test_mutants_are_spread_over_functions_and_are_the_same_each_time():
    found = [Mutant(name, offset, offset, b"", b"", "call", "") for name, most in (("a", 50), ("b", 2), ("c", 50))
             for offset in range(most)]
    chosen = spread(found, 12)
    assert [sum(each.function == name for each in chosen) for name in "abc"] == [5, 2, 5]
    assert chosen == spread(found, 12)


def seen(outcome="passed", value=1.0, packets=3):
    return Seen(outcome, "why", ({"name": "m", "value": value, "unit": "s", "tolerance": 0.1},), {"client sends x": packets})


@pytest.mark.parametrize("now, found", [
    (seen(), {}), (seen(value=1.05), {}), (seen(value=1.2), {"m": "m: 1 -> 1.2 s"}), (seen("failed"), {"outcome": "passed -> failed: why"}),
    (seen(packets=4), {"client sends x": "client sends x: 3 -> 4"}),
    (Seen("passed"), {"m": "m is missing", "client sends x": "client sends x: 3 -> 0"}),
])
def test_a_test_notices_an_outcome_a_measurement_or_traffic(now, found):
    assert noticed(seen(), now) == found


@pytest.fixture
def kept(tmp_path):
    """What was prepared, and the file that has it."""
    known = Prepared([FUNCTION], {0x1000: "f", CALLEE: "g"}, {FUNCTION: b"\xc3"}, ["tests/a.py::t"], {0: seen()},
                     [{0: seen(value=0.1 + 0.2)}], {0x1000: [0]})
    exactly = {0: replace(known.base[0], exactly=(b"packets", {1: 2}))}
    replace(known, base=exactly).write(tmp_path / "study.json", "key")
    return known, tmp_path / "study.json"


def test_prepared_machine_is_known_again_as_it_was(kept):
    known, file = kept
    assert Prepared.read(file, "key") == known
    assert Prepared.read(file, "another suite's") is None
    assert Prepared.read(file.with_name("none"), "key") is None


def test_half_written_account_of_a_machine_is_made_again(kept):
    _known, file = kept
    file.write_text(file.read_text()[:-9])
    assert Prepared.read(file, "key") is None


def test_what_moves_by_itself_is_not_noticed():
    assert noticed(seen(), seen(packets=4, value=2), {"client sends x", "m"}) == {}


class Rerun:
    """A bench on which the unchanged kernel and the mutant each do a thing once more; None: the machine is lost."""

    over = False

    def __init__(self, unchanged, mutated):
        self._seen = {False: unchanged, True: mutated}

    @contextmanager
    def mutated(self, tests, mutant=None, seed=0):
        yield None, self._seen[mutant is not None]

    def results(self, conversation, tests, expected):
        if conversation is None:
            raise Gone("silent")
        return iter([conversation] * len(tests))


@pytest.mark.parametrize("unchanged, mutated, killed", [
    (seen(), seen(packets=4), True), (seen(), seen(), False), (seen(packets=4), seen(packets=4), False),
    (seen(value=2), seen(packets=4), True), (seen(), seen(value=2), False), (seen(), None, True), (None, seen(packets=4), True),
    (seen(), seen("failed"), True),
], ids=["again", "chance", "without it", "another thing without it", "another thing", "lost", "lost without it", "failed"])
def test_a_kill_happens_again_and_not_without_the_mutant(unchanged, mutated, killed):
    study = Study(Rerun(unchanged, mutated), {}, argparse.Namespace())
    study.base, study.unsteady, study.controls, study.afterwards = {7: seen()}, {7: set()}, {}, []
    mutant = Mutant("f", 0, 0, b"", b"", "call", "")
    assert study.confirmed(mutant, [7], noticed(seen(), seen(packets=4))) == ("client sends x: 3 -> 4" if killed else "")
    assert killed or "client sends x" in study.unsteady[7]


@pytest.mark.parametrize("unchanged, mutated, killed", [
    (seen(), seen("failed"), True), (seen(), None, True), (seen(), seen(), False), (seen(), seen(packets=4), False),
    (seen("failed"), seen("failed"), False), (None, None, False),
])
def test_another_outcome_has_to_come_again_and_not_without_the_mutant(unchanged, mutated, killed):
    study = Study(Rerun(unchanged, mutated), {}, argparse.Namespace())
    study.base, study.unsteady, study.controls, study.afterwards = {7: seen()}, {7: set()}, {}, []
    found = study.confirmed(Mutant("f", 0, 0, b"", b"", "call", ""), [7], noticed(seen(), seen("failed")))
    assert bool(found) == killed


def test_a_ledger_is_read_back_without_a_half_written_line(tmp_path):
    verdict = Verdict("f+0x1 call", "f", ("keepalive",), "call g: call of g skipped", "killed", "t", "how", 1, 2)
    Ledger(tmp_path / "l", "key").add(verdict)
    with (tmp_path / "l").open("a") as file:
        file.write('{"key": "ke')
    assert Ledger(tmp_path / "l", "key").verdicts == {verdict.mutant: verdict}
    assert Ledger(tmp_path / "l", "another").verdicts == {}


def test_only_what_was_reached_and_ran_counts():
    outcomes = ["killed", "killed", "killed", "survived", "not reached", "no start"]
    assert score("all", [Verdict(str(number), "f", (), "", outcome) for number, outcome in enumerate(outcomes)]).share == 0.75


def test_a_mutant_that_changes_nothing_is_told_apart_and_counts_in_no_score():
    mutant = Mutant("f", 1, 1, b"e8", b"90", "call", "call g: call of g skipped").unchanged()
    assert (mutant.id, mutant.new, mutant.text) == ("f+0x1 nothing", b"e8", "call g: unchanged")
    study = Study(None, {"keepalive": ["f"]}, argparse.Namespace())
    verdicts = [study.verdict(mutant, "killed", "t", "how"), study.verdict(mutant, "survived")]
    assert [each.outcome for each in verdicts] == ["false alarm", "quiet"] and score("f", verdicts).share is None
    assert checked(verdicts) == "2 control mutants that change nothing: 1 called killed"


def test_everything_runs_in_an_order_of_chance_but_what_is_last():
    study = Study(argparse.Namespace(tests=["tests/leftovers/test_a.py::a", *(f"tests/tcp/test_b.py::{n}" for n in range(50))]), {},
                  argparse.Namespace())
    tests = list(range(51))
    orders = [study.shuffled(tests, seed) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == tests and orders[0][-1] == orders[2][-1] == 0


def test_every_family_that_needs_no_device_has_functions():
    guards = tomllib.loads(GUARDS.read_text())
    assert guards.keys() >= {"keepalive", "pmtu", "larval", "rawbuf", "audit", "tcp", "timewait", "halfopen", "errnos", "traceroute",
                             "pidns", "tracing", "tunnels"}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_nothing_is_left_of_a_run_that_is_ended_while_its_machine_boots(tmp_path, how):
    session = Session(tmp_path, "")
    session.command = ["./kdrift", "sensitivity", "halfopen", f"--kernel={KERNEL}", "--offline", f"--report={session.report}"]
    with session:
        session.wait_for_process("qemu-system")
        session.process.send_signal(how)
        session.end()
    assert session.status == Exit.INTERRUPTED


def test_machines_of_the_other_workers_end_when_the_run_is_interrupted():
    class Bench:
        over, ended, begun = False, threading.Event(), threading.Barrier(2)

        def end(self):
            self.over = True
            self.ended.set()

        def runs(self):
            self.begun.wait()
            return self.ended.wait(60)

    bench = Bench()
    with pytest.raises(KeyboardInterrupt), Study(bench, {}, argparse.Namespace(slots=1)).workers() as pool:
        running, waiting = pool.submit(bench.runs), pool.submit(bench.runs)
        bench.begun.wait()
        raise KeyboardInterrupt
    assert bench.over and running.result() and waiting.cancelled()


@pytest.mark.parametrize("losses, over, begun, result", [
    (0, False, 1, nullcontext()), (1, False, 2, nullcontext()), (2, False, 2, LOST), (1, True, 1, LOST),
], ids=["not lost", "once", "twice", "when the run ends"])
def test_a_machine_that_is_lost_unchanged_is_tried_once_more(losses, over, begun, result):
    calls = []

    def prepare(what):
        calls.append(what)
        if len(calls) <= losses:
            raise Gone("QEMU ended: killed by SIGSEGV")
        return what

    study = Study(argparse.Namespace(over=over), {}, argparse.Namespace())
    with result:
        assert study.twice(prepare, "all") == "all"
    assert calls == ["all"] * begun


def test_functions_that_the_kernel_does_not_have_are_named(tmp_path, monkeypatch):
    bench = argparse.Namespace(state=tmp_path, over=False, study=lambda names: ([], {}, {}))
    study = Study(bench, {}, argparse.Namespace())
    monkeypatch.setattr(study, "key", lambda names: "key")

    with pytest.raises(SpecError, match="none of these functions is in this kernel, .*: tcp_connect_init, tcp_syn_options"):
        study.prepared(["tcp_connect_init", "tcp_syn_options"])
