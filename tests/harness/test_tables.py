"""Tables: what a row's test says of its cells, and what becomes of it in results, in the verdict and in a sensitivity run."""

import json
from types import SimpleNamespace

import jsonschema
import pytest

from fixtures.table import LeftOut, Measured, Must, OneOf, Table, TableRow
from netns import MissingFeature
from report.changes import changes, counted
from report.expected import explain
from report.files import write_files
from report.kinds import column_of, mirrored
from report.reading import SCHEMA_FILE, read
from report.results import Collector, KernelResult, TestResult
from report.traffic import numbers
from report.verdict import compare
from rerun.bench import Seen
from sensitivity.score import noticed

RUN = {"started": "2026-01-01T00:00:00+00:00", "duration_s": 1.5, "arguments": [], "python": "3.11.2", "exit_status": 0}
TABLE = Table("tcp.answers", "state", "segment", "RFC 9293 3.10.7", {
    "LISTEN": {"SYN": "SYN-ACK", "ACK": Must("RST", "RFC 5961 5"), "FIN": OneOf(("nothing", "RST"), "both are allowed"),
               "RST": Measured("no document"), "URG": LeftOut("not tried")},
    "CLOSED": {"SYN": "RST"},
    "LOST": {"SYN": LeftOut("no such socket")},
})
CHANGE = """
[[change]]
id = "a"
sentence = "LISTEN no longer answers"
kinds = ["cell: tcp.answers, SYN: RST -> nothing"]
kernels = ["6.5.."]
commit = "ccce324dabfe"
subject = "tcp: s"
"""


def run(answers, row="LISTEN", table=TABLE):
    """What a test says that sees these answers, one a column, and the cells that it recorded."""
    node = SimpleNamespace(user_properties=[])
    under_test = TableRow(table, row, node)
    try:
        for _column, texts in zip(under_test, answers, strict=False):
            for text in [texts] if isinstance(texts, str) else texts:
                under_test.saw(text)
        return "", [cell for _name, cell in node.user_properties]
    except (AssertionError, RuntimeError, ValueError, MissingFeature) as error:
        return f"{type(error).__name__}: {error}", [cell for _name, cell in node.user_properties]


def whole(row, *answers):
    """As run(), to the end of the row's iteration."""
    return run([*answers, "no such column"], row)


def test_a_table_knows_its_cells():
    assert TABLE.rows == ["LISTEN", "CLOSED"]
    assert TABLE.columns("LISTEN") == ["SYN", "ACK", "FIN", "RST"]
    assert [TABLE.count(kind) for kind in (str, Must, OneOf, Measured, LeftOut)] == [2, 1, 1, 1, 2]


def test_a_row_that_is_as_it_must_be_passes_and_is_recorded():
    said, cells = whole("LISTEN", "SYN-ACK", "RST", "RST", "whatever")
    assert said == ""
    assert [(cell["column"], cell["seen"], cell["expected"]) for cell in cells] == [
        ("SYN", "SYN-ACK", ["SYN-ACK"]), ("ACK", "RST", ["RST"]), ("FIN", "RST", ["nothing", "RST"]), ("RST", "whatever", [])]
    assert {(cell["table"], cell["row"], cell["rows"], cell["columns"]) for cell in cells} == {
        ("tcp.answers", "LISTEN", "state", "segment")}
    assert [cell["began"] for cell in cells] == sorted(cell["began"] for cell in cells)


def test_all_wrong_cells_are_named_in_one_failure_each_with_its_source():
    said, cells = whole("LISTEN", "RST", "nothing", "SYN-ACK", "whatever")
    assert said == ("AssertionError: tcp.answers, LISTEN: SYN: RST, expected SYN-ACK (RFC 9293 3.10.7); "
                    "ACK: nothing, expected RST (RFC 5961 5); FIN: SYN-ACK, expected nothing or RST (both are allowed)")
    assert len(cells) == 4


def test_a_cell_of_which_the_test_says_nothing_fails_at_once():
    said, cells = whole("LISTEN", "SYN-ACK", [])
    assert said == "AssertionError: tcp.answers, LISTEN, ACK: the test did not say what it saw"
    assert [cell["column"] for cell in cells] == ["SYN"]


def test_a_cell_of_which_the_test_says_two_things_is_a_mistake():
    assert run([["SYN-ACK", "RST"]])[0] == "RuntimeError: tcp.answers, LISTEN: saw 'RST' of no cell, or of one cell twice"


@pytest.mark.parametrize("text", ["", " ", "RST -> nothing", "RST\nACK", "\x1b[31mRST"])
def test_a_text_that_cannot_be_compared_is_a_mistake(text):
    assert run([text])[0] == f"ValueError: tcp.answers, LISTEN, SYN: {text!r}: expected a text in one line, without ' -> '"


@pytest.mark.parametrize("name, row, column, complaint", [
    ("tcp.x", "LISTEN", "SYN: late", "column 'SYN: late'"), ("tcp.x", "LISTEN", "", "column ''"), ("tcp.x", "LISTEN", "a\nb", "column"),
    ("tcp.x", "", "SYN", "row ''"), ("tcp.x", "a\nb", "SYN", "row"), ("tcp: x", "LISTEN", "SYN", "tcp: x: "),
    ("tcp, x", "LISTEN", "SYN", "tcp, x: "),
])
def test_names_that_a_change_cannot_hold_are_refused(name, row, column, complaint):
    with pytest.raises(ValueError) as refused:
        Table(name, "state", "segment", "RFC", {row: {column: "RST"}})
    assert complaint in str(refused.value)


def test_a_feature_that_is_missing_half_way_skips_the_row_and_keeps_what_was_seen():
    """The cells before it stay in the results, and count for nothing: the test is skipped."""
    node = SimpleNamespace(user_properties=[])
    row = TableRow(TABLE, "LISTEN", node)
    with pytest.raises(MissingFeature):
        for column in row:
            if column == "FIN":
                raise MissingFeature("the kernel has no FIN")
            row.saw("SYN-ACK" if column == "SYN" else "RST")
    assert [cell["column"] for _name, cell in node.user_properties] == ["SYN", "ACK"]


def result(row, seen, outcome="passed", family="ipv4", column="SYN"):
    """The result of a row of one cell."""
    cell = {"table": "tcp.answers", "row": row, "rows": "state", "column": column, "columns": "segment", "seen": seen,
            "expected": [], "began": 1.5}
    return TestResult(f"t.py::test_answer[{family}-{row}]", outcome, cells=[cell], traffic=numbers(cells=[cell]))


def kernel(version, *tests):
    return KernelResult(version, version, version=version, tests=list(tests))


def test_cells_go_through_pytest_to_the_results_and_the_file(tmp_path):
    """The file has its schema's form, and is read back."""
    _said, cells = whole("LISTEN", "SYN-ACK", "RST", "RST", "whatever")
    pcap = {"host": "client", "base64": "eJw=", "cut": 0, "encoding": "deflate", "addresses": ["192.0.2.1"]}
    collector = Collector()
    for when in ("setup", "call", "teardown"):
        properties = [("cell", cell) for cell in cells if when != "setup"] + [("pcap", pcap)] * (when == "call")
        collector.add("6.12", SimpleNamespace(
            nodeid="t.py::test_answer[LISTEN]", when=when, outcome="passed", passed=True, failed=False, skipped=False, duration=0.1,
            start=0.0, user_properties=properties, sections=[("Captured stdout call", "text")], longrepr=None))
    [test] = collector.of("6.12")
    assert (test.cells, test.captures, test.evidence) == (cells, [pcap], [])

    write_files(tmp_path, RUN, [kernel("6.12", test)], [])

    document = json.loads((tmp_path / "results.json").read_text())
    jsonschema.validate(document, json.loads(SCHEMA_FILE.read_text()))
    assert read(tmp_path / "results.json")[1][0].tests[0].cells == cells
    del document["kernels"][0]["tests"][0]["cells"][0]["seen"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json.loads(SCHEMA_FILE.read_text()))


def test_a_cell_that_differs_is_a_change_in_its_own_words_and_that_of_a_skipped_row_is_none():
    old = kernel("6.1", result("LISTEN", "RST"), result("CLOSED", "RST"), result("A", "RST", "skipped"))
    new = kernel("6.12", result("LISTEN", "nothing"), result("CLOSED", "RST"), result("A", "x"))

    [kind] = changes(old, new)

    assert kind.key == "cell: tcp.answers, SYN: RST -> nothing"
    assert kind.text == "tcp.answers, SYN: RST -> nothing (1 test; state LISTEN)"
    assert not kind.vocabulary
    assert counted([kind]) == "1 behaviour change: 0 explained, 1 not; 0 vocabulary changes: 0 explained"


@pytest.mark.parametrize("was, now", [("failed", "passed"), ("known", "known"), ("passed", "known"), ("failed", "failed")])
@pytest.mark.parametrize("clock", ["virtual", "real"])
def test_a_bad_cell_does_not_hide_the_others_of_its_row(was, now, clock):
    """A cell that is wrong on either kernel is a failure, and no change; its neighbours are compared. On the real clock nothing is."""
    old, new = kernel("6.1", result("LISTEN", "RST", was)), kernel("6.12", result("LISTEN", "nothing", now))
    for each, seen in ((old, "wrong"), (new, "RST")):
        each.clock = clock
        [test] = each.tests
        test.cells.append(test.cells[0] | {"column": "ACK", "seen": seen, "expected": ["RST"]})
        test.traffic = {}

    assert [kind.key for kind in changes(old, new)] == ["cell: tcp.answers, SYN: RST -> nothing"] * (clock == "virtual")
    assert compare(old, new).regressions == ([(old.tests[0], new.tests[0])] if (was, now) == ("passed", "known") else [])


@pytest.mark.parametrize("moved, where", [
    (["r0", "r3"], "2 tests; state r0, r3"), ([f"r{number}" for number in range(5)], "5 tests; 5 of 9 rows"),
    ([f"r{number}" for number in range(9)], "9 tests"),
])
def test_a_change_names_its_rows_where_they_are_few_and_says_nothing_where_they_are_all(moved, where):
    rows = [f"r{number}" for number in range(9)]
    old = kernel("6.1", *(result(row, "RST") for row in rows), result("other", "RST", column="ACK"))
    new = kernel("6.12", *(result(row, "nothing" if row in moved else "RST") for row in rows), result("other", "RST", column="ACK"))

    [kind] = changes(old, new)

    assert kind.text == f"tcp.answers, SYN: RST -> nothing ({where})"


def test_one_row_over_both_families_is_named_once():
    tests = [("ipv4", "LISTEN"), ("ipv6", "LISTEN"), ("ipv4", "CLOSED")]
    old = kernel("6.1", *(result(row, "RST", family=family) for family, row in tests))
    new = kernel("6.12", *(result(row, "nothing" if row == "LISTEN" else "RST", family=family) for family, row in tests))

    assert [kind.text for kind in changes(old, new)] == ["tcp.answers, SYN: RST -> nothing (2 tests; state LISTEN)"]


def test_cells_that_changed_alike_in_other_columns_or_to_other_texts_are_changes_of_their_own():
    old = kernel("6.1", result("A", "RST"), result("B", "RST", column="ACK"), result("C", "RST"))
    new = kernel("6.12", result("A", "nothing"), result("B", "nothing", column="ACK"), result("C", "ACK"))

    assert sorted(kind.key for kind in changes(old, new)) == [
        "cell: tcp.answers, ACK: RST -> nothing", "cell: tcp.answers, SYN: RST -> ACK", "cell: tcp.answers, SYN: RST -> nothing"]


def test_a_cell_leads_before_packets_and_is_not_folded_under_them():
    old = kernel("6.1", result("A", "RST"), TestResult("t.py::test_b", traffic={"client counts Tcp.A": 1}))
    new = kernel("6.12", result("A", "nothing"), TestResult("t.py::test_b", traffic={"client counts Tcp.A": 2}))
    assert [kind.key for kind in changes(old, new)] == ["cell: tcp.answers, SYN: RST -> nothing", "higher: counter Tcp.A"]


@pytest.mark.parametrize("kind, back", [
    ("cell: tcp.answers, SYN: RST -> nothing", "cell: tcp.answers, SYN: nothing -> RST"),
    ("cell: tcp.answers, SYN, then: ACK: errno: 5 -> ACK: 6", "cell: tcp.answers, SYN, then: ACK: 6 -> ACK: errno: 5"),
    ("cell: t.a, to -> from: x -> y", "cell: t.a, to -> from: y -> x"),
])
def test_a_change_of_a_cell_seen_from_the_newer_kernel_is_mirrored(kind, back):
    assert mirrored(kind) == back
    assert mirrored(back) == kind


@pytest.mark.parametrize("kind, column", [
    ("cell: tcp.answers, SYN, old: RST -> nothing", "SYN, old"), ("more: tcp S", None), ("gone: log a, b: c", None),
])
def test_the_column_of_a_change_is_in_its_words(kind, column):
    assert column_of(kind) == column


@pytest.mark.parametrize("old, new, explained", [
    ("6.1", "6.12", True), ("6.12", "6.1", True), ("6.1", "6.4", False), ("6.6", "6.12", False)])
def test_a_change_of_cells_is_explained_by_its_entry_from_both_sides(tmp_path, old, new, explained):
    (tmp_path / "changes.toml").write_text(CHANGE)
    seen = ("RST", "nothing") if old != "6.12" else ("nothing", "RST")
    kernels = [kernel(version, result("LISTEN", text)) for version, text in zip((old, new), seen, strict=True)]

    [kind] = changes(*kernels, expected=explain(*kernels, path=tmp_path / "changes.toml"))

    assert bool(kind.expected) is explained


def test_the_verdict_and_the_summary_say_the_change_in_one_line(tmp_path):
    old, new = kernel("6.1", result("LISTEN", "RST")), kernel("6.12", result("LISTEN", "nothing"))
    comparison = compare(old, new)

    lines = "\n".join(comparison.lines())

    assert "1 changed" in comparison.headline()
    assert "tcp.answers, SYN: RST -> nothing (1 test; state LISTEN): t.py::test_answer[ipv4-LISTEN]" in lines
    write_files(tmp_path, RUN, [old, new], [comparison])
    text = (tmp_path / "summary.md").read_text().replace("\\", "")
    assert "| tcp.answers, SYN: RST -> nothing (1 test; state LISTEN) | t.py::test_answer[ipv4-LISTEN] |" in text


def test_a_cell_that_differs_kills_a_mutant():
    base, other = (Seen("passed", traffic=result("LISTEN", text).traffic) for text in ("RST", "nothing"))
    assert noticed(base, base) == {}
    assert noticed(base, other) == {
        "cell tcp.answers, SYN: RST": "cell tcp.answers, SYN: RST: 1 -> 0",
        "cell tcp.answers, SYN: nothing": "cell tcp.answers, SYN: nothing: 0 -> 1"}
