"""./kdrift explore without machines: the language, the generator, the comparison, shrinking, and what is kept."""
import fcntl
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from cli.__main__ import main
from cli.explore import LOCK
from common.status import Exit
from explore.alone import Alone
from explore.bench import READY, WARMING, fitting
from explore.draft import write_case
from explore.findings import LEDGER, BatchDone, Finding, Findings
from explore.generator import scenario as generated
from explore.language import STEPS, ScenarioError, check, read, without
from explore.observation import ENDED, Pair, Seen, differing, kinds_of, seen, steady
from explore.shrink import shrink
from explore.study import Exploration, Side
from kernels.extract import Kernel
from report.results import KernelResult
from rerun.conversation import Gone
from vm.qemu import VMError

CONNECT = {"version": 1, "family": "ipv4", "hosts": 2, "steps": [
    {"do": "socket", "host": "server", "name": "listener", "kind": "tcp"},
    {"do": "bind", "socket": "listener", "address": "any", "port": 80},
    {"do": "listen", "socket": "listener", "backlog": 5},
    {"do": "socket", "host": "client", "name": "conn", "kind": "tcp"},
    {"do": "connect", "socket": "conn", "address": "server", "port": 80},
    {"do": "wait", "seconds": 1.5},
]}
OLD, NEW = (KernelResult(version, version, version=version, clock="virtual", counters=["Tcp.InSegs"]) for version in ("6.1.1", "6.12.1"))


def with_step(**step):
    return {**CONNECT, "steps": [*CONNECT["steps"], step]}


@pytest.mark.parametrize("scenario, complaint", [
    (3, "3 is not of type 'object'"),
    ({**CONNECT, "version": 2}, "version: 1 was expected"),
    ({**CONNECT, "hosts": 4}, "hosts: 4 is greater than the maximum of 3"),
    ({**CONNECT, "hosts": 1}, "step 1, socket: there is no server"),
    ({**CONNECT, "mtus": [1500, 1500]}, "mtus: 2 hosts have 1 links"),
    (with_step(do="fly"), "steps: 7: do: 'fly' is not one of "),
    (with_step(do="close", socket="nobody"), "step 7, close: there is no socket nobody"),
    (with_step(do="close", socket="conn", now=1), "step 7, close: Additional properties are not allowed ('now' was unexpected)"),
    (with_step(do="listen", socket="conn"), "step 7, listen: 'backlog' is a required property"),
    (with_step(do="socket", host="client", name="conn", kind="udp"), "step 7, socket: there is a socket conn already"),
    (with_step(do="sysctl", host="client", name="net.ipv4.tcp_ecn", value=9), "step 7, sysctl: net.ipv4.tcp_ecn may be 0, 1, 2"),
    (with_step(do="option", socket="conn", option="TCP_MAXSEG", value=1), "step 7, option: TCP_MAXSEG may be 88, 536, 1400"),
    (with_step(do="link", host="client", peer="client", up=True), "step 7, link: client has no link to client"),
    (with_step(do="send", socket="conn", size=1, address="router"), "step 7, send: there is no router"),
])
def test_what_is_no_scenario_is_refused_in_one_line(scenario, complaint):
    with pytest.raises(ScenarioError) as refused:
        check(scenario)
    assert str(refused.value).startswith(complaint) and "\n" not in str(refused.value)


@pytest.mark.parametrize("content, complaint", [(b"{", "not JSON"), (b"\xff", "not JSON"), (b"[]", "[] is not of type 'object'")])
def test_file_that_is_no_scenario_is_refused_with_its_name(tmp_path, content, complaint):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ScenarioError, match=complaint.replace("[", r"\[")) as refused:
        read(tmp_path / "a.json")
    assert str(tmp_path / "a.json") in str(refused.value)


def test_generated_scenarios_keep_to_the_language_and_use_every_step():
    made = [check(generated(f"1-{number}")) for number in range(600)]
    assert {step["do"] for scenario in made for step in scenario["steps"]} == set(STEPS)
    assert {scenario["hosts"] for scenario in made} == {1, 2, 3} and {scenario["family"] for scenario in made} == {"ipv4", "ipv6"}


def test_scenario_of_a_seed_is_the_same_each_time_and_of_another_seed_another():
    assert generated("7-1") == generated("7-1")
    assert len({json.dumps(generated(f"7-{number}")) for number in range(100)}) == 100


def test_scenarios_that_warm_a_machine_keep_to_the_language():
    assert [check(scenario) for scenario in WARMING] == WARMING


def test_batch_of_generated_scenarios_fits_in_one_machine_and_a_larger_one_is_divided():
    for first in range(0, 2000, 100):
        scenarios = [generated(f"1-{number}") for number in range(first, first + 100)]
        assert len(fitting(scenarios)) >= 85
    assert len(fitting([CONNECT] * 200)) == READY[2]


def test_step_is_removed_with_those_that_need_its_socket():
    assert [step["do"] for step in without(CONNECT, {0})["steps"]] == ["socket", "connect", "wait"]
    accepted = with_step(do="accept", socket="listener", name="peer")
    assert check(without(with_step(do="close", socket="conn"), {5})) and len(without(accepted, {0})["steps"]) == 3


def test_value_that_varies_on_one_kernel_is_no_difference():
    one, other, third = (Seen({"1 connect tcp": text}, {"client sends tcp S": count}) for text, count in (("a", 1), ("b", 2), ("c", 2)))
    assert differing(one, other) == {"1 connect tcp", "client sends tcp S"}
    assert steady([one, one], [other, other]) == {"1 connect tcp", "client sends tcp S"}
    assert steady([one, one], [other, third]) == {"client sends tcp S"}
    assert steady([one, other], [third, third]) == set()


def test_machine_that_ended_differs_in_that_alone():
    ended = seen(CONNECT, {"ended": "crashed", "why": "BUG: unable to handle page fault for address: ffff888001234567"})
    assert differing(Seen({"1 socket tcp": "made"}), ended) == {ENDED}
    [kind] = kinds_of([Pair("a", Seen(), ended)], OLD, NEW)
    assert kind.key == "cell: explore, the machine: nothing -> crashed: BUG: unable to handle page fault for address: #"


def test_kind_names_the_step_but_not_its_number_or_the_sockets_name():
    pairs = [Pair(name, Seen({f"{number} connect tcp": "EINPROGRESS"}), Seen({f"{number} connect tcp": "EACCES"}))
             for name, number in (("a", 3), ("b", 11))]
    [kind] = kinds_of(pairs, OLD, NEW)
    assert kind.key == "cell: explore, connect tcp: EINPROGRESS -> EACCES" and kind.tests == ["explore::a", "explore::b"]


def test_field_of_a_socket_is_a_kind_by_direction_as_a_counter_is():
    one, other = (seen(CONNECT, {"steps": [["done", 0.0]] * 6, "events": [], "sockets": {"conn": {"snd_cwnd": value}}, "routes": {},
                                 "hosts": {}, "log": []}) for value in (10, 20))
    old, new = (replace(each, counters=["TCP_INFO.snd_cwnd"]) for each in (OLD, NEW))
    [kind] = kinds_of([Pair("a", one, other)], old, new)
    assert kind.key == "higher: counter TCP_INFO.snd_cwnd"


@pytest.mark.parametrize("was, now, kind", [
    ("10 bytes", "20 bytes", "higher: counter bytes of send tcp"), ("20 bytes", "0 bytes", "lower: counter bytes of send tcp"),
    ("20 bytes", "EAGAIN", "cell: explore, send tcp: 20 bytes -> EAGAIN"),
])
def test_amount_of_data_is_a_kind_by_direction(was, now, kind):
    [found] = kinds_of([Pair("a", Seen({"4 send tcp": was}), Seen({"4 send tcp": now}))], OLD, NEW)
    assert found.key == kind


def test_time_of_an_event_is_a_kind_by_direction():
    name = "2 of conn event at tcp at"
    [kind] = kinds_of([Pair("a", Seen(numbers={name: 3.1}), Seen(numbers={name: 7.2}))], OLD, NEW)
    assert kind.key == "later: an event at tcp" and kind.text == "an event at tcp comes later (1 test)"


def test_additional_syn_retransmissions_are_explained():
    syn = "client sends ipv4 ttl 64 tos 0x0 DF tcp S seq 0 ack 0 window 64240 len 0 mss 1460"
    [kind] = kinds_of([Pair("a", Seen(numbers={syn: 3}), Seen(numbers={syn: 5}))], OLD, NEW)
    assert kind.key == "more: tcp S" and kind.expected and "tcp_syn_linear_timeouts" in str(kind.expected)


def test_shrinking_leaves_the_steps_and_values_that_matter():
    big = generated("3-1")
    big = {**big, "hosts": 3, "family": "ipv6", "steps": [*big["steps"], *(
        {"do": "wait", "seconds": 70}, {"do": "socket", "host": "client", "name": "needed", "kind": "udp"},
        {"do": "send", "socket": "needed", "size": 3000, "address": "nowhere", "port": 5000, "flags": "MSG_DONTROUTE"})]}

    def holds(scenarios):
        return [any(step["do"] == "send" and step.get("socket") == "needed" and step["size"] >= 100 for step in each["steps"])
                for each in scenarios]

    small = shrink(big, holds)
    assert small == {"version": 1, "family": "ipv4", "hosts": 1, "steps": [
        {"do": "socket", "host": "client", "name": "needed", "kind": "udp"},
        {"do": "send", "socket": "needed", "size": 100, "address": "nowhere", "port": 5000}]}


def test_value_made_simpler_lets_further_steps_go():
    def holds(scenarios):
        return [any(step["do"] == "send" and (step["size"] == 1 or {"do": "flush", "host": "client"} in each["steps"])
                    for step in each["steps"]) for each in scenarios]

    small = shrink({**CONNECT, "steps": [*CONNECT["steps"][3:], {"do": "flush", "host": "client"},
                                         {"do": "send", "socket": "conn", "size": 3000}]}, holds)
    assert [step["do"] for step in small["steps"]] == ["socket", "send"]


def finding(kind="more: tcp S"):
    return Finding(kind, "text", CONNECT, "1-1", [11, 12, 13])


def test_findings_survive_the_process_and_are_of_one_exploration(tmp_path):
    kept = Findings(tmp_path, "key")
    kept.add(finding())
    kept.end_batch(BatchDone(0, 10, 1, {"more: tcp S": 1}, {}, 1.0, 1.0))
    again, other = Findings(tmp_path, "key"), Findings(tmp_path, "other")
    assert again.found == {"more: tcp S": finding()} and again.next_batch == 1 and again.counts() == {"more: tcp S": 1}
    assert not other.found and other.next_batch == 0


@pytest.mark.parametrize("damage", ['{"key": "key", "num', "[]\n", "{}\n", '{"key": "key", "number": 1}\n', "\0\0\0\n"])
def test_damaged_entry_costs_only_itself(tmp_path, damage):
    kept = Findings(tmp_path, "key")
    for number in (0, 1):
        kept.add(finding(f"more: {number}"))
        kept.end_batch(BatchDone(number, 10, 0, {}, {}, 1.0, 1.0))
    with (tmp_path / LEDGER).open("a") as file:
        file.write(damage)
    (tmp_path / f"kind-{finding('more: 0').id}.json").write_text(damage)
    again = Findings(tmp_path, "key")
    assert again.next_batch == 2 and list(again.found) == ["more: 1"] and again.damaged == 2
    again.end_batch(BatchDone(2, 10, 0, {}, {}, 1.0, 1.0))
    assert Findings(tmp_path, "key").next_batch == 3


class StandIn:
    """A kernel: what a scenario's steps show is computed by `result(step, seed)`."""

    def __init__(self, result):
        self.result, self.computed_s, self.ran = result, 0.0, Counter()

    def observe(self, scenarios, seed, checked=False):
        self.ran[seed] += len(scenarios)
        return [{"steps": [[self.result(step, seed), 0.0] for step in each["steps"]], "events": [], "sockets": {}, "routes": {},
                 "hosts": {}, "log": []} for each in scenarios]

    def end(self):
        pass


def explored(directory, old, new, scenarios=100):
    said = []
    findings = Findings(directory, "key")
    exploration = Exploration(Side(StandIn(old), OLD), Side(StandIn(new), NEW), findings, 1, 2, said.append, 50)
    exploration.run(10, scenarios)
    return findings, said


def plain(step, seed):
    return "done"


def test_same_kernel_on_both_sides_has_no_difference_whatever_varies_by_seed(tmp_path):
    findings, said = explored(tmp_path, *[lambda step, seed: f"done {seed % 7}" if step["do"] == "send" else "done"] * 2)
    assert not findings.found and sum(each.scenarios for each in findings.batches.values()) == 100
    assert not any(each.unsteady for each in findings.batches.values())     # nothing had to be confirmed
    assert said[-1].startswith("100 scenarios") and ": 0 differ, 0 kinds" in said[-1]


def test_difference_is_confirmed_and_shrunk_to_the_step_that_shows_it(tmp_path):
    findings, said = explored(tmp_path, plain, lambda step, seed: "EINVAL" if step["do"] == "route" else "done")
    [found] = findings.found.values()
    assert found.kind == "cell: explore, route: done -> EINVAL" and found.seeds == [11, 12, 13] and found.shrunk
    assert [step["do"] for step in found.scenario["steps"]] == ["route"]
    assert any("route" in line and "done -> EINVAL" in line for line in found.story)
    assert findings.counts()[found.kind] == sum(any(step["do"] == "route" for step in generated(f"1-{number}")["steps"])
                                                for number in range(100))


def test_promoted_finding_is_the_draft_of_a_test_with_the_figures_of_both_kernels(tmp_path, capsys):
    findings, _said = explored(tmp_path, plain, lambda step, seed: "EINVAL" if step["do"] == "route" else "done")
    [found] = findings.found.values()
    assert (found.old, found.new) == ({"step 1": "done"}, {"step 1": "EINVAL"}) and found.between == ["6.1.1", "6.12.1"]
    assert main(["explore", "--promote", found.id, "--report", str(tmp_path)]) == Exit.OK
    target = tmp_path / f"test_explored_{found.id}.py"
    assert str(target) in capsys.readouterr().out
    made = {}
    exec(compile(target.read_text(), str(target), "exec"), made)
    assert (made["SCENARIO"], made["OLD"], made["NEW"]) == (found.scenario, found.old, found.new)
    assert all(line in made["__doc__"] for line in found.story) and "TODO: name the promise" in made[f"test_explored_{found.id}"].__doc__


@pytest.mark.parametrize("expected, status, said", [("EINPROGRESS", 0, "NOT REPRODUCED"), ("ECONNREFUSED", 1, "REPRODUCED")])
def test_finding_is_a_case_without_kdrift_that_reproduces_where_a_kernel_does_not_as_the_old_one(tmp_path, expected, status, said):
    steps = [{"do": "socket", "host": "client", "name": "conn", "kind": "tcp"},
             {"do": "connect", "socket": "conn", "address": "server", "port": 80}]
    write_case(tmp_path / "repro.pyz", replace(
        finding(), scenario={**CONNECT, "steps": steps}, story=["ipv4: client -- server"], between=["6.1.1", "6.12.1"],
        old={"step 2": expected}, new={"step 2": "EACCES"}))
    done = subprocess.run([sys.executable, "-I", "repro.pyz"], cwd=tmp_path, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert (done.returncode, done.stderr) == (status, "") and done.stdout.splitlines()[-1].startswith(said)
    assert "ipv4: client -- server" in done.stdout


def test_difference_in_what_has_no_figure_is_told_and_cannot_be_promoted(tmp_path, capsys):
    Findings(tmp_path, "key").add(finding())
    assert main(["explore", "--promote", finding().id, "--report", str(tmp_path)]) == Exit.USAGE
    assert "in no figure" in capsys.readouterr().err


def test_damaged_finding_cannot_be_promoted(tmp_path, capsys):
    (tmp_path / "kind-12345678.json").write_text('{"key": "key", "kind": 1}')
    assert main(["explore", "--promote", "12345678", "--report", str(tmp_path)]) == Exit.USAGE
    assert capsys.readouterr().err == f"kdrift: {tmp_path}/kind-12345678.json: damaged\n"


class Faulty(StandIn):
    """A kernel by itself: `wrong(scenario, seed)` has what it does that it must not, by place; `vary` differs from run to run."""

    def __init__(self, wrong, vary=lambda run, seed: "done", log=()):
        super().__init__(lambda step, seed: vary(sum(self.ran.values()), seed))
        self.wrong, self.log = wrong, list(log)

    def observe(self, scenarios, seed, checked=False):
        assert checked
        return [{**found, "wrong": self.wrong(scenario, seed), "log": self.log if any(step["do"] == "link" for step in scenario["steps"])
                 else []} for found, scenario in zip(super().observe(scenarios, seed), scenarios, strict=True)]


def explored_alone(directory, kernel):
    findings = Findings(directory, "key")
    side = Side(kernel, NEW)
    Alone(side, side, findings, 1, 1, lambda line: None, 50).run(10, 50)
    return findings


def sends(scenario):
    return any(step["do"] == "send" for step in scenario["steps"])


@pytest.mark.parametrize("kernel, kinds", [
    (Faulty(lambda scenario, seed: []), []),
    (Faulty(lambda scenario, seed: [["packets of client", "Ip.InReceives is 5, but 4 packets came"]] if sends(scenario) else []),
     ["cell: explore, packets of client: nothing -> Ip.InReceives is #, but # packets came"]),
    (Faulty(lambda scenario, seed: [["packets of client", "wrong"]] if sends(scenario) and seed != 12 else []), []),
    (Faulty(lambda scenario, seed: [], log=["a link is down", "WARNING: CPU: 0 PID: 7 at net/core/dev.c:12"]),
     ["cell: explore, the log: nothing -> WARNING: CPU: 0 PID: # at net/core/dev.c:#"]),
    (Faulty(lambda scenario, seed: [], vary=lambda run, seed: str(seed)), []),
    (Faulty(lambda scenario, seed: [], vary=lambda run, seed: str(run)),
     ["cell: explore, the same run again: nothing -> shows something else"]),
])
def test_one_kernel_alone_is_found_where_it_does_what_none_may(tmp_path, kernel, kinds):
    assert list(explored_alone(tmp_path, kernel).found) == kinds


def test_violation_is_shrunk_to_the_steps_that_show_it(tmp_path):
    kernel = Faulty(lambda scenario, seed: [["another namespace", "is told RTM_NEWROUTE"]] if sends(scenario) else [])
    [found] = explored_alone(tmp_path, kernel).found.values()
    assert [step["do"] for step in found.scenario["steps"]] == ["socket", "send"] and not list(tmp_path.glob("*.pyz"))


def test_difference_that_does_not_come_each_time_is_none(tmp_path):
    findings, _said = explored(tmp_path, plain, lambda step, seed: "EINVAL" if step["do"] == "route" and seed != 12 else "done")
    assert not findings.found
    assert sum(findings.batches[0].unsteady.values()) == 3


def test_exploration_continues_with_the_batch_after_the_last_one(tmp_path):
    explored(tmp_path, plain, plain, 50)
    findings, _said = explored(tmp_path, plain, plain, 150)
    assert sorted(findings.batches) == [0, 1, 2]


class Booted(StandIn):
    """The same, as the command makes one of a kernel."""

    results, boots, ends = {"6.1": plain, "6.12": plain}, None, None
    counters = ("Tcp.InSegs",)

    def __init__(self, kernel, directory):
        super().__init__(self.results[kernel.spec])
        self.kernel = kernel

    def boot(self):
        if self.boots:
            raise self.boots

    def observe(self, scenarios, seed, checked=False):
        if self.ends:
            raise self.ends
        return super().observe(scenarios, seed, checked)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Types the command; kernels are stand-ins with these traits."""
    def typed(*words, **traits):
        for name, value in traits.items():
            monkeypatch.setattr(Booted, name, value)
        return main(["explore", "6.1", "6.12", "--scenarios", "20", "--batch", "20", "--report", str(tmp_path), *words])

    monkeypatch.setattr("explore.sides.ScenarioBench", Booted)
    monkeypatch.setattr("cli.explore.resolve", lambda spec, *_, **__: Kernel(spec, spec, None, "6.1.1" if spec == "6.1" else "6.12.1",
                                                                            Path(spec), None, spec))
    return typed


@pytest.mark.parametrize("traits, status, said", [
    ({}, Exit.OK, "20 scenarios: 0 differ, 0 kinds"),
    ({"results": {"6.1": plain, "6.12": lambda step, seed: "EINVAL" if step["do"] == "connect" else "done"}}, Exit.REGRESSION,
     "explore, connect tcp: done -> EINVAL"),
    ({"boots": VMError("no boot\nlines")}, Exit.NOT_BOOTED, "kdrift: 6.1: no boot"),
    ({"ends": Gone("told to end")}, Exit.LOST, "kdrift: told to end"),
    ({"ends": OSError(28, "No space left on device")}, Exit.LOST, ": No space left on device"),
    ({"ends": KeyboardInterrupt()}, Exit.INTERRUPTED, ""),
])
def test_exit_status_says_what_became_of_the_exploration(command, capsys, traits, status, said):
    assert command(**traits) == status
    out, err = capsys.readouterr()
    assert said in out + err and "Traceback" not in out + err


def test_exploration_broken_off_in_a_batch_continues_there(command, tmp_path):
    assert command("--scenarios", "20") == Exit.OK
    before = (tmp_path / LEDGER).read_text()
    assert command("--scenarios", "40", ends=KeyboardInterrupt()) == Exit.INTERRUPTED
    assert (tmp_path / LEDGER).read_text() == before
    assert command("--scenarios", "40", ends=None) == Exit.OK
    assert (tmp_path / LEDGER).read_text().startswith(before) and (tmp_path / LEDGER).read_text().count("\n") == 2


@pytest.mark.parametrize("write", ["write_whole", "write_case"])
def test_full_disk_costs_the_running_batch_and_nothing_else(command, tmp_path, capsys, monkeypatch, write):
    """`write_whole` writes a finding, `write_case` its repro.pyz."""
    place = {"write_whole": "explore.findings.write_whole", "write_case": "explore.study.write_case"}[write]

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    differ = {"6.1": plain, "6.12": lambda step, seed: "EINVAL" if step["do"] == "route" else "done"}
    assert command() == Exit.OK
    with monkeypatch.context() as disk:
        disk.setattr(place, full)
        assert command("--scenarios", "40", results=differ) == Exit.LOST
    assert capsys.readouterr().err == f"kdrift: {tmp_path}: No space left on device\n"
    assert command("--scenarios", "60", results=differ) == Exit.REGRESSION
    numbers = [json.loads(line)["number"] for line in (tmp_path / LEDGER).read_text().splitlines()]
    assert sorted(numbers) == [0, 1, 2] and len(list(tmp_path.glob("repro-*.pyz"))) == 1


def test_directory_belongs_to_one_exploration_at_a_time(command, tmp_path, capsys):
    with (tmp_path / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert command() == Exit.USAGE
    assert capsys.readouterr().err == f"kdrift: --report {tmp_path}: another exploration uses it\n"


@pytest.mark.parametrize("name, removed", [("kdrift-left", True), ("other", False)])
def test_machines_of_a_killed_exploration_are_removed_and_nothing_else(command, tmp_path, monkeypatch, name, removed):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / name / "ram").mkdir(parents=True)
    (tmp_path / LOCK).write_text(str(tmp_path / name))
    assert command() == Exit.OK
    assert (tmp_path / name).exists() is not removed
    assert not list(tmp_path.glob("kdrift-*"))


@pytest.mark.parametrize("content", [CONNECT, {"key": "k", "kind": "x", "scenario": CONNECT}])
@pytest.mark.parametrize("new, status, said", [
    (plain, Exit.OK, "no difference"),
    (lambda step, seed: "EINVAL" if step["do"] == "connect" else "done", Exit.REGRESSION,
     "unexplained explore, connect tcp: done -> EINVAL"),
])
def test_one_scenario_is_judged_alone(command, tmp_path, capsys, content, new, status, said):
    (tmp_path / "one.json").write_text(json.dumps(content))
    assert command("--scenario", str(tmp_path / "one.json"), results={"6.1": plain, "6.12": new}) == status
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "ipv4: client -- server" and out.splitlines()[-1] == said
    assert not (tmp_path / LEDGER).exists()


def test_scenario_that_is_none_is_refused(command, tmp_path, capsys):
    (tmp_path / "one.json").write_text("{}")
    assert command("--scenario", str(tmp_path / "one.json")) == Exit.USAGE
    assert capsys.readouterr().err == f"kdrift: {tmp_path}/one.json: 'version' is a required property\n"


def test_directory_that_cannot_be_made_is_refused(command, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert command("--report", str(tmp_path / "file" / "below")) == Exit.USAGE
    assert capsys.readouterr().err == f"kdrift: --report {tmp_path}/file/below: Not a directory\n"


@pytest.mark.parametrize("words", [["explore", "6.1", "6.12", "--minutes", "0"], ["explore", "6.1", "6.12", "--seed", "x"]])
def test_wrong_use_is_refused(words):
    with pytest.raises(SystemExit) as refused:
        main(words)
    assert refused.value.code == Exit.USAGE


@pytest.mark.parametrize("words", [[], ["6.1", "6.6", "6.12"], ["6.1", "--promote", "12345678"], ["--promote", "12345678"]])
def test_number_of_kernels_that_makes_no_sense_is_refused_in_one_line(words, tmp_path, capsys):
    assert main(["explore", *words, "--report", str(tmp_path)]) == Exit.USAGE
    assert capsys.readouterr().err.count("\n") == 1


def test_kernel_that_is_none_is_refused(tmp_path, capsys):
    assert main(["explore", "six", "6.12", "--report", str(tmp_path)]) == Exit.USAGE
    assert capsys.readouterr().err.count("\n") == 1
