"""A guest is a stranger: what no worker sends costs its kernel the run, and the host nothing."""

import marshal
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from execnet.gateway_base import Message, dumps_internal

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
REPORT = {"$report_type": "TestReport", "nodeid": TEST, "outcome": "passed", "when": "call", "sections": [], "longrepr": None}
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
    message(data=b"N\xff\xff\xff\xfaQ"), message(data=b"\0Q"),
], ids=["bytes", "text", "program", "status", "settings", "end", "negative", "huge", "huge list", "negative list", "many lists", "back",
        "no type"])
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
                          ("collectreport", {"data": {**REPORT, "$report_type": "CollectReport", "nodeid": "tests/a.py"}}),
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
    ("collectreport", {"data": {**REPORT, "$report_type": "CollectReport", "nodeid": "tests/b.py"}}),
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


def test_a_report_in_one_piece_is_checked_too(guest):
    """As fixtures.transport sends it."""
    _name, found = guest.checked("testreport", {"data": {"kdrift": marshal.dumps(REPORT), "item_index": 1}})
    assert found["data"]["nodeid"] == TEST
    for data in (b"", b"\xff", marshal.dumps(1), marshal.dumps({**REPORT, "nodeid": OTHER}), marshal.dumps({**REPORT, "item_index": 0}),
            "x"):
        with pytest.raises(Misbehaved):
            guest.checked("testreport", {"data": {"kdrift": data, "item_index": 1}})


def test_a_kernel_whose_guest_misbehaves_loses_its_run_and_no_other(tmp_path):
    """Its running test is lost without a second attempt, and it gets no other machine; the other kernel goes on."""
    session = KernelSession.__new__(KernelSession)
    session.places = [Place(HERE, 1, "01")]
    session.wanted = [KernelRun("0", "bad"), KernelRun("1", "good")]
    session.runs = {run.number: run for run in session.wanted}
    session.sched = KernelScheduling([Shard("0", "0", [TEST, OTHER]), Shard("1", "1", [TEST])], {})
    session.shuttingdown = session.shouldstop = False
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
    node.process_from_remote(("logstart", {"nodeid": "tests/none.py::test_x"}))
    assert ended
    session.worker_errordown(node, None)

    assert session.shown == [("bad", TEST, "the guest claims the test 'tests/none.py::test_x', for which it was not asked", False)]
    assert session.sched.unfinished == {"1"}
    assert session.sched.next(session.places)[0].kernel == "1"


def test_execnet_numbers_its_messages_as_the_outlet_does():
    names = [Message._types[kind][0] for kind in (4, 5, 6, 7)]
    assert names == ["CHANNEL_DATA", "CHANNEL_CLOSE", "CHANNEL_CLOSE_ERROR", "CHANNEL_LAST_MESSAGE"]
