"""A guest is a stranger: what no worker sends costs its kernel the run, and the host nothing."""

import base64
import json
import marshal
import sys
import zlib
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from _pytest.runner import CallInfo
from execnet.gateway_base import Message, dumps_internal

from fixtures import transport
from report.traffic import FRAME
from session.guests import BESIDES, EACH, Guest, harmless
from session.places import HERE, Place
from session.runs import KernelRun
from session.scheduler import KernelScheduling, Shard
from session.session import KernelSession
from vm import line as lines, machine as machines
from vm.job import Events
from vm.line import Line
from vm.machine import Machine, event_of
from vm.outlet import LONGEST, Misbehaved, Outgoing

TEST, OTHER = "tests/a.py::test_a", "tests/b.py::test_b"
REPORT = {"$report_type": "TestReport", "nodeid": TEST, "outcome": "passed", "when": "call", "sections": [], "longrepr": None,
          "location": ("tests/a.py", 1, "test_a"), "keywords": {"test_a": 1}}
COLLECTED = {**REPORT, "$report_type": "CollectReport", "nodeid": "tests/a.py", "result": None}
WARNING = {"message_module": "builtins", "message_class_name": "UserWarning", "message_args": ("x",), "message_str": "x",
           "category_module": "builtins", "category_class_name": "UserWarning"}


def message(value=None, kind=4, channel=1, data=None):
    data = dumps_internal(value) if data is None else data
    return bytes([kind]) + channel.to_bytes(4, "big") + len(data).to_bytes(4, "big") + data


def test_what_a_worker_sends_passes_in_whole_messages_however_it_comes():
    sent = b"".join([message(("testreport", {"data": REPORT, "n": [1, 2.5, None, True, {"a": (b"x", -1)}]})), message(data=b"", kind=7)])
    for size in (1, 8, 9, 100, len(sent)):
        outgoing = Outgoing()
        parts = [outgoing.cut(sent[at:at + size]) for at in range(0, len(sent), size)]
        assert b"".join(parts) == sent
        assert all(not part or part[0] in (4, 7) for part in parts)


@pytest.mark.parametrize("sent", [
    b"\xff" * 9, b"HTTP/1.1 200 OK\r\n", message("x", kind=3), message(kind=0), message((True, True), kind=1), message(kind=2),
    b"\x04\0\0\0\1\xff\xff\xff\xff", b"\x04\0\0\0\1" + (LONGEST + 1).to_bytes(4, "big"),
    message(data=b"K\x7f\xff\xff\xffQ"), message(data=b"K\xff\xff\xff\xffQ"), message(data=b"K\0\0\0\x08" * 9 + b"Q"),
    message(data=b"N\xff\xff\xff\xfaQ"), message(data=b"\0Q"), message(kind=6, data=b"K\x7f\xff\xff\xffQ"),
], ids=["bytes", "text", "program", "status", "settings", "end", "negative", "huge", "huge list", "negative list", "many lists", "back",
        "no type", "huge list as an error"])
def test_what_no_worker_sends_is_noticed_before_execnet_reads_it(sent):
    with pytest.raises(Misbehaved) as refused:
        Outgoing().cut(sent)
    assert str(refused.value).isprintable()


def test_a_guest_that_floods_its_gateway_is_stopped(tmp_path, monkeypatch):
    """Well-formed messages too; no more than a megabyte is read at a time."""
    monkeypatch.setattr(lines, "MOST_WRITTEN", 3 << 20)
    line = Line(tmp_path)
    line.prepare()
    line.open()
    try:
        (tmp_path / "output").write_bytes(message("x" * 991) * 4000)
        assert 0 < len(line.received()) <= 1 << 20
        with pytest.raises(Misbehaved, match="more than 3 MB to its gateway"):
            while line.received():
                pass
    finally:
        line.close()


def test_a_guest_that_floods_its_console_is_stopped_and_its_end_is_read_alone(tmp_path, monkeypatch):
    machine = Machine(tmp_path / "bzImage", tmp_path / "initrd", [], tmp_path, "virtual", "tcg")
    machine.console.write_text("x" * 100_000 + "\n\x1b[2J\x1b]0;title\x07 end\n")
    machine.check_console()
    assert machine.console_tail(1) == ["\\x1b[2J\\x1b]0;title\\x07 end"]
    monkeypatch.setattr(machines, "MOST_CONSOLE", 1000)
    with pytest.raises(Misbehaved, match="to its console"):
        machine.check_console()


@pytest.mark.parametrize("said", [
    b"", b"\xff\n", b"[]\n", b'{"event": "ready"}\n', b'{"event": "ready", "lacks": [1]}\n',
    b'{"event": "ready", "lacks": ["\\u001b[2J"]}\n',
    b'{"event": "wrong", "name": "x", "flags": "0", "right": 0}\n', b'{"event": []}\n', b'{"shell": 1}\n', b"[" * 100_000 + b"\n"])
def test_an_event_of_process_1_has_its_form(said):
    with pytest.raises(Misbehaved) as refused:
        event_of(said)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 500


def test_the_events_of_process_1_are_taken():
    assert event_of(b'{"event": "ready", "release": "6", "lacks": ["tun"]}\n')["lacks"] == ["tun"]
    assert event_of(b'{"event": "done", "status": 1}\n')["status"] == 1


@pytest.fixture
def guest():
    found = Guest([TEST])
    found.checked("collectionfinish", {"ids": [OTHER, TEST]})
    return found


def test_a_worker_is_believed(guest):
    for name, details in [("workerready", {}), ("logstart", {"nodeid": TEST, "location": ()}),
                          ("testreport", {"data": {**REPORT, "item_index": 1}}),
                          ("collectreport", {"data": COLLECTED}),
                          ("runtest_protocol_complete", {"item_index": 1, "duration": 1.0}), ("workerfinished", {"workeroutput": {}})]:
        assert guest.checked(name, details) == (name, details)


@pytest.mark.parametrize("name, details", [
    ("testreport", {"data": {**REPORT, "nodeid": OTHER, "item_index": 0}}), ("testreport", {"data": {**REPORT, "item_index": 0}}),
    ("testreport", {"data": {**REPORT, "item_index": 7}}), ("testreport", {"data": REPORT}), ("testreport", {"data": {**REPORT,
            "item_index": -1}}),
    ("testreport", {"data": {**REPORT, "nodeid": "tests/none.py::test_x", "item_index": 1}}),
    ("testreport", {"data": {**REPORT, "kernel": "x", "item_index": 1}}), ("testreport", {"data": {**REPORT, "issue": 1, "item_index": 1}}),
    ("testreport", {"data": {**REPORT, "outcome": "perfect", "item_index": 1}}), ("testreport", {"data": [], "item_index": 1}),
            ("testreport", {"data": {**REPORT, "item_index": 1}, "item_index": 0}),
    ("testreport", {"data": {**REPORT, "$report_type": "os.system", "item_index": 1}}),
    ("collectreport", {"data": {**COLLECTED, "nodeid": "tests/b.py"}}),
    ("logstart", {"nodeid": OTHER}), ("logfinish", {"nodeid": None}), ("runtest_protocol_complete", {"item_index": 0, "duration": 0}),
    ("collectionfinish", {"ids": [1]}), ("errordown", {"error": 1}), ("__init__", {}), (1, {}), ("workerready", []),
], ids=str)
def test_what_was_not_asked_for_is_not_believed(guest, name, details):
    with pytest.raises(Misbehaved) as refused:
        guest.checked(name, details)
    assert str(refused.value).isprintable()


def test_events_without_end_are_noticed(guest):
    with pytest.raises(Misbehaved, match="events logwarning for 1 tests"):
        for _ in range(BESIDES + EACH + 1):
            guest.checked("logwarning", {})


@pytest.mark.parametrize("module, name", [("os", "system"), ("subprocess", "Popen"), ("this", "s"), ("builtins", "exec"), (None, None)])
def test_a_warning_imports_and_calls_nothing(module, name):
    """xdist would import the module that a guest names, and call what it names there."""
    before = set(sys.modules)
    found = harmless({**WARNING, "message_module": module, "message_class_name": name, "category_module": module,
                      "category_class_name": name, "message_str": "\x1b[2J"})
    assert (found["message_module"], found["message_str"]) == (None, "\\x1b[2J")
    assert (found["category_module"], found["category_class_name"]) == ("builtins", "UserWarning")
    assert set(sys.modules) == before


def test_terminal_escapes_of_a_report_are_text(guest):
    _name, found = guest.checked("testreport", {"data": {**REPORT, "longrepr": "a\n\x1b[31mb\tc", "sections": [["t\x9b", "\x07"]],
                                                         "item_index": 1}})
    assert (found["data"]["longrepr"], found["data"]["sections"]) == ("a\n\\x1b[31mb\tc", [["t\\x9b", "\\x07"]])


# A packet with a thousand tunnels in each other.
NESTED = FRAME.pack(1, 40_014, 40_014, False) + bytes(12) + b"\x08\0" + (b"\x45" + bytes(8) + b"\4" + bytes(10)) * 2000


def piece(**changes):
    """A report in one piece, as fixtures.transport sends it."""
    return {"kdrift": json.dumps({**REPORT, "item_index": 1, **changes})}


def property_of(name, value):
    return piece(user_properties=[[name, value]])


def frames(data):
    return {"hosts": {"client": {"frames": base64.b64encode(data).decode(), "counters": {}}}, "log": [], "cells": []}


def test_a_report_in_one_piece_is_checked_too(guest):
    _name, found = guest.checked("testreport", {"data": piece(sections=[["t", "\x1b[2J"]])})
    assert found["data"] == {**REPORT, "item_index": 1, "sections": [["t", "\\x1b[2J"]]}      # and no piece that pytest would read again


@pytest.mark.parametrize("data", [
    {"kdrift": marshal.dumps(REPORT), "item_index": 1}, {"kdrift": marshal.dumps(REPORT).decode("latin-1"), "item_index": 1},
    {"kdrift": b""}, {"kdrift": "x"}, {"kdrift": "1"}, {"kdrift": "[" * 200_000}, {"kdrift": '{"a":' * 200_000},
    {"kdrift": json.dumps({**REPORT, "item_index": 1})[:-1] + ', "duration": ' + "9" * 1_000_000 + "}"},
    piece(kdrift=json.dumps({"nodeid": OTHER})), piece(nodeid=OTHER), piece(item_index=0), piece(item_index="1"), piece(nodeid=[TEST]),
    piece(extra=json.loads("[" * 900 + "]" * 900)), {**REPORT, "item_index": 1, "extra": b"x"},
    piece(duration=10 ** 4000), piece(duration=float("nan")), piece(duration=float("inf")), piece(start=1e300), piece(duration="1"),
    piece(location=None), piece(location=["a", "b", "c"]), piece(location=["a", 1]), piece(keywords=[]), piece(outcome=["passed"]),
    piece(sections="ab"), piece(sections=[["t"]]), piece(sections=[["t", 1]]), piece(longrepr=1), piece(longrepr={}),
    piece(longrepr={"reprcrash": 1, "reprtraceback": 1}), piece(longrepr=["a", 1]), piece(outcome="skipped", longrepr="why"),
    piece(user_properties={"a": 1}), piece(user_properties=[1]), piece(user_properties=[[1, 2]]), piece(wasxfail=[1]), piece(when=[]),
    piece(passed=True), piece(_id="x"), piece(self="x"), piece(longreprtext="x"), piece(_from_json=1),
    property_of("pcap", "x"), property_of("pcap", {"host": "../../x", "addresses": [], "base64": "", "cut": 0}),
    property_of("pcap", {"host": "x", "addresses": [], "base64": "A", "cut": 0}), property_of("measurement", {"name": "x"}),
    property_of("measurement", {"name": "x", "value": "1", "unit": "s", "tolerance": None}), property_of("cell", []),
    property_of("measurement", {"name": "x", "value": 10 ** 4000, "unit": "s", "tolerance": None}), property_of("counters", 1),
    property_of("skip", "me"), property_of("promise", 1), property_of("traffic", {"hosts": 1}), property_of("traffic", frames(b"x")),
    property_of("traffic", frames(zlib.compress(b"xxx"))), property_of("traffic", frames(zlib.compress(bytes(100 << 20)))),
    property_of("traffic", frames(zlib.compress(NESTED))), property_of("traffic", frames(zlib.compress(bytes(1000))[:-8])),
])
def test_a_crafted_report_costs_the_guest_its_run(guest, data):
    with pytest.raises(Misbehaved) as refused:
        guest.checked("testreport", {"data": data})
    assert str(refused.value).isprintable() and len(str(refused.value)) < 500


def real_report(act, **options):
    """What pytest makes of a test that did this, and what its worker sends."""
    item = SimpleNamespace(nodeid=TEST, id=TEST, location=REPORT["location"], keywords={"test_a": 1},
                           _report_sections=[("call", "stdout", "x")],
                           user_properties=[("promise", "it works"), ("skip", "kernel"), ("mine", {"a": [1, None, float("nan")]})])
    call = CallInfo.from_call(act, "call")
    if call.excinfo and not call.excinfo.errisinstance(pytest.skip.Exception):
        item.repr_failure = lambda excinfo: excinfo.getrepr(**options)
        item.config = Mock(option=SimpleNamespace(tbstyle="long"), getoption=lambda *_words: "long")
        item._repr_failure_py = item.repr_failure
    return pytest.TestReport.from_item_and_call(item, call)


def fails():
    x = [1]
    try:
        raise ValueError("\udc80")
    except ValueError:
        assert x == 2, "é"


@pytest.mark.parametrize("act, options", [
    (lambda: None, {}), (lambda: pytest.skip("no"), {}), *[
        (fails, {"style": style, "showlocals": True, "funcargs": True}) for style in ("long", "short", "line", "native", "value", "no")]])
def test_reports_of_pytest_pass_and_are_as_it_made_them(guest, act, options, pytestconfig):
    made = real_report(act, **options)
    sent = pytestconfig.hook.pytest_report_to_serializable(config=pytestconfig, report=made)
    wrapped = transport.pytest_report_to_serializable()
    next(wrapped)
    with pytest.raises(StopIteration) as packed:
        wrapped.send(sent)
    _name, found = guest.checked("testreport", {"data": {**packed.value.value, "item_index": 1, "worker_id": "guest", "testrun_uid": "u"}})
    read = pytestconfig.hook.pytest_report_from_serializable(config=pytestconfig, data=found["data"])
    assert (read.nodeid, read.outcome, read.location, read.longreprtext) == (
        made.nodeid, made.outcome, made.location, made.longreprtext.replace("\udc80", "\\udc80"))
    assert type(read.longrepr) is type(made.longrepr)


@pytest.mark.parametrize("said, why", [
    (("logstart", {"nodeid": "tests/none.py::test_x"}), "the guest claims the test 'tests/none.py::test_x', for which it was not asked"),
    (("testreport", {"data": {"kdrift": marshal.dumps(REPORT), "item_index": 1}}), "the guest sent no report, but a piece that is none"),
    (("testreport", {"data": {"kdrift": "[" * 100_000}}), "the guest sent no report, but a piece that is none"),
])
def test_a_kernel_whose_guest_misbehaves_loses_its_run_and_no_other(tmp_path, said, why):
    """Its running test is lost without a second attempt, and it gets no other machine; the other kernel goes on."""
    session = KernelSession.__new__(KernelSession)
    session.places = [Place(HERE, 1, "01")]
    session.wanted = [KernelRun("0", "bad"), KernelRun("1", "good")]
    session.runs = {run.number: run for run in session.wanted}
    session.sched = KernelScheduling([Shard("0", "0", [TEST, OTHER]), Shard("1", "1", [TEST])], {})
    session.shuttingdown = session.shouldstop = False
    session.directory = tmp_path
    session.owners, session.ended, session.started, session.shown = {}, set(), {}, []
    session.report_ending = lambda run, node, test, end, again: session.shown.append((run.spec, test, end["why"], again))
    ended = []
    popen = SimpleNamespace(terminate=lambda: ended.append(True))
    node = Mock(gateway=SimpleNamespace(spec=SimpleNamespace(kernel="0", shard="0"), _io=SimpleNamespace(popen=popen)),
                           workerinput={}, process_from_remote=lambda said: pytest.fail("believed"), ensure_teardown=lambda: None)
    shard = session.sched.shards["0"]
    shard.node, shard.place, session.places[0].shards["0"] = node, session.places[0], "0"
    session._active_nodes, session.events, session.misbehaved = {node}, {node: Events(tmp_path / "events")}, {}
    session.sched.add_node(node)
    session.sched.add_node_collection(node, [TEST, OTHER])

    session.pytest_configure_node(node)
    node.process_from_remote(said)
    assert ended
    session.worker_errordown(node, None)

    assert session.shown == [("bad", TEST, why, False)]
    assert session.sched.unfinished == {"1"}
    assert session.sched.next(session.places)[0].kernel == "1"


def test_execnet_numbers_its_messages_as_the_outlet_does():
    names = [Message._types[kind][0] for kind in (4, 5, 6, 7)]
    assert names == ["CHANNEL_DATA", "CHANNEL_CLOSE", "CHANNEL_CLOSE_ERROR", "CHANNEL_LAST_MESSAGE"]
