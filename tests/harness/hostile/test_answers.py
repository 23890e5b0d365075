"""Guests of retries, bisections and explorations are strangers too: an answer of another form costs that machine, and no more."""
import base64
import json
import zlib
from types import SimpleNamespace

import pytest

from explore import bench as scenarios
from explore.observation import seen
from rerun import bench, conversation
from rerun.conversation import Conversation, Gone
from vm.outlet import Misbehaved

TEST = "tests/a.py::test_a"
MEASURED = {"name": "m", "value": 1.5, "unit": "s", "tolerance": None}
FRAMES = base64.b64encode(zlib.compress(b"")).decode()
TRAFFIC = {"hosts": {"client": {"frames": FRAMES, "counters": {"TcpOutSegs": 1}}}, "log": [], "cells": []}
ANSWER = ("passed", "", [MEASURED], TRAFFIC, (1, 2), "")


class Channel:
    """Has these answers."""

    TimeoutError, RemoteError = type("Silent", (Exception,), {}), type("Failed", (Exception,), {})

    def __init__(self, *answers):
        self.answers = list(answers)

    def receive(self, timeout):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def talk(monkeypatch):
    """talk(*answers): the conversation with a guest that gives these."""
    monkeypatch.setattr(conversation, "Patience", lambda *_words, **_options: SimpleNamespace(is_over=lambda: False))

    def start(*answers, console=lambda: None):
        found = Conversation.__new__(Conversation)
        process = SimpleNamespace(pid=1, poll=lambda: None)
        found.machine = SimpleNamespace(process=process, computed_s=lambda: 0.0, check_console=console)
        found.channel = Channel(*answers)
        return found
    return start


def results(talk, *answers):
    return list(bench.Bench.results(None, talk(None, *answers), range(len(answers))))


def test_what_a_test_did_is_believed(talk):
    [passed, failed] = results(talk, ANSWER, ("failed", "assert 1 == 2\n\x1b[2J", [], {}, (1, 2), ">   assert"))
    assert (passed.outcome, passed.measurements, passed.traffic) == ("passed", (MEASURED,), {"client counts TcpOutSegs": 1})
    assert failed.message == "assert 1 == 2\n\\x1b[2J"


@pytest.mark.parametrize("answer", [
    None, "passed", ANSWER[:5], (*ANSWER, 1), ("perfect", *ANSWER[1:]), (*ANSWER[:1], 1, *ANSWER[2:]), (*ANSWER[:2], [1], *ANSWER[3:]),
    (*ANSWER[:2], [{**MEASURED, "value": float("nan")}], *ANSWER[3:]), (*ANSWER[:3], {"hosts": 1}, *ANSWER[4:]),
    (*ANSWER[:3], {**TRAFFIC, "hosts": {"client": {"frames": "x", "counters": {}}}}, *ANSWER[4:]), (*ANSWER[:4], (1,), ""),
    (*ANSWER[:5], b">"),
])
def test_an_answer_of_another_form_is_a_lost_machine(talk, answer):
    with pytest.raises(Gone) as gone:
        results(talk, answer)
    assert gone.value.end == "lost" and str(gone.value).isprintable()


@pytest.mark.parametrize("answer", [None, TEST, [1], {TEST: 1}])
def test_tests_are_a_list_of_names(talk, answer):
    talking = talk()
    channel = Channel(answer)
    channel.send = lambda order: None
    talking._gateway = SimpleNamespace(remote_exec=lambda program: channel)
    with pytest.raises(Gone):
        talking.begin([TEST])


def test_a_guest_that_floods_its_console_meanwhile_is_lost(talk):
    def console():
        raise Misbehaved("the guest wrote more than 64 MB to its console")

    with pytest.raises(Gone, match="64 MB to its console"):
        talk(Channel.TimeoutError(), ANSWER, console=console).answer(1)


@pytest.mark.parametrize("why, words", [("Traceback\n\x1b[2J", "\\x1b[2J"), ("", "an error without words")])
def test_an_error_of_the_guest_is_one_line(talk, why, words):
    with pytest.raises(Gone) as gone:
        talk(Channel.RemoteError(why)).answer(1)
    assert str(gone.value) == words


SCENARIO = {"version": 1, "family": "ipv4", "hosts": 1, "steps": [{"do": "socket", "host": "client", "name": "a", "kind": "udp"},
                                                                   {"do": "poll", "socket": "a"}]}
OBSERVED = {"steps": [["ok", 0.0], ["OUT\x1b[2J", 0.1]], "events": [["a", "OUT", 0.0]], "sockets": {"a": {"mtu": 1500, "connected": "yes"}},
            "routes": {"client": ["dst x"]}, "tracked": {}, "log": ["WARNING: x"],
            "hosts": {"client": {"frames": "", "texts": {"": {"snmp": "Tcp: OutSegs\nTcp: 1\n"}}}}}


def packed(value):
    return zlib.compress(json.dumps(value).encode())


def test_what_a_scenario_showed_is_believed():
    found = seen(SCENARIO, scenarios.read(SCENARIO, packed(OBSERVED)))
    assert found.texts["2 poll udp"] == "OUT\\x1b[2J"
    assert found.numbers["client counts Tcp.OutSegs"] == 1


@pytest.mark.parametrize("answer", [
    None, b"", b"x", "x", packed(OBSERVED)[:-8], packed(1), packed({}), zlib.compress(b"[" * 100_000), zlib.compress(b"{"),
    zlib.compress(b" " * (100 << 20) + json.dumps(OBSERVED).encode()), *(packed({**OBSERVED, **changes}) for changes in (
        {"steps": []}, {"steps": [[1, 0.0], ["x", 0.0]]}, {"steps": [["x", 0.0]]}, {"events": [["b", "OUT", 0.0]]}, {"events": [1]},
        {"sockets": {"b": {}}}, {"sockets": {"a": {"mtu": [1]}}}, {"sockets": []}, {"routes": {"client": "x"}}, {"log": [1]},
        {"hosts": {"client": {"frames": "x", "texts": {}}}}, {"hosts": {"client": {"frames": "eHh4", "texts": {}}}},
        {"hosts": {"client": {"frames": "", "texts": {"": {"snmp": "Tcp: OutSegs\nTcp: x\n"}}}}}, {"wrong": ["x"]},
        {"hosts": {"client": {"frames": "", "texts": {"": {"passwd": "x"}}}}},
        {"hosts": {"client": {"frames": "", "texts": {"": {"snmp": 1}}}}},
        {"more": 1}))])
def test_an_observation_of_another_form_is_refused_in_one_line(answer):
    with pytest.raises(Misbehaved) as refused:
        scenarios.read(SCENARIO, answer)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 200


def test_a_scenario_whose_guest_misbehaves_ended_its_machine_and_the_rest_run_in_another(monkeypatch):
    answers = [[packed(OBSERVED), b"x"], [packed(OBSERVED)]]

    def run(self, given, seed, checked):
        for scenario, answer in zip(given, answers.pop(0), strict=False):
            yield scenarios.read(scenario, answer)

    exploring = scenarios.ScenarioBench.__new__(scenarios.ScenarioBench)
    exploring.over = False
    monkeypatch.setattr(scenarios.ScenarioBench, "_run", run)
    found = exploring.observe([SCENARIO] * 3, 1)
    assert [each.get("ended") for each in found] == [None, "lost", None]
