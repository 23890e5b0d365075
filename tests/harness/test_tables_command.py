"""./kdrift tables: the tables of the tests, counted and named, and docs/tables.md."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from cli.__main__ import main
from cli.tables import Found, described, page, tables, total, whole
from common.project import PROJECT
from fixtures.table import LeftOut, Measured, Must, OneOf, Table
from tests.harness.sessions import CASES

TABLE = Table("tcp.answers", "state", "segment", "RFC 9293 3.10.7", {
    "LISTEN": {"SYN": "SYN-ACK", "ACK": Must("RST", "RFC 5961 5"), "FIN": OneOf(("nothing", "RST"), "both are allowed"),
               "RST": Measured("no document"), "URG": LeftOut("not tried")},
    "CLOSED": {"SYN": "RST"},
    "LOST": {"SYN": LeftOut("no such socket")},
})
FOUND = Found(TABLE, ["tests/tcp/test_answers_table.py::test_answer"], {
    ("tests/tcp/test_answers_table.py::test_answer", family): ["LISTEN", "CLOSED"] for family in ("ipv4", "ipv6")})


def test_cells_are_counted_as_often_as_they_run():
    assert dict(FOUND.counts()) == {"asserted": 8, "measured": 2, "left out": 4}
    assert total([FOUND, FOUND]) == "2 tables, 28 cells: 16 asserted, 4 measured, 8 left out"


def test_the_list_has_where_cells_come_from_and_why_others_are_left_out():
    assert described(FOUND) == [
        "tcp.answers", "    state (3) x segment (5), over ipv4, ipv6", "    14 cells: 8 asserted, 2 measured, 4 left out",
        "    source: RFC 9293 3.10.7", "    asserted (2): RFC 5961 5", "    several allowed (2): both are allowed",
        "    measured (2): no document", "    left out (2): not tried", "    left out (2): no such socket",
        "    tests/tcp/test_answers_table.py::test_answer"]


def test_the_whole_table_has_every_cell():
    assert whole(FOUND)[10:] == [
        "", "LISTEN", "    SYN  SYN-ACK", "    ACK  RST  [RFC 5961 5]", "    FIN  nothing or RST  [both are allowed]",
        "    RST  measured  [no document]", "    URG  left out  [not tried]", "", "CLOSED", "    SYN  RST", "", "LOST",
        "    SYN  left out  [no such socket]"]


def test_the_page_of_tables_leads_to_the_tests():
    text = page([FOUND])
    assert "| [tcp.answers](#tcpanswers) | state (3) x segment (5), over ipv4, ipv6 | 8 | 2 | 4 |" in text
    assert "- test: [answer](../tests/tcp/test_answers_table.py)" in text


def test_text_of_a_table_is_no_markdown():
    table = Table("a.b", "x|y", "c", "a_b [c](d) <e>", {"r": {"c": "d"}})
    text = page([Found(table, [], {("f", ""): ["r"]})])
    assert r"| x\|y (1) x c (1) |" in text
    assert r"Source: a\_b \[c\](d) \<e\>." in text


def test_a_table_is_found_by_its_mark():
    """By pytest, in a process of its own: it would find this one's modules."""
    code = "import sys; from cli.tables import *; print(*whole(*tables(collect(sys.argv[1:]))), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code, f"{CASES}/test_table.py", "--tables=all"], cwd=PROJECT, capture_output=True,
                          text=True)
    lines = done.stdout.splitlines()
    assert lines[:3] == ["tcp.first_segment", "    port (3) x first segment (7), over ipv4, ipv6",
                         "    28 cells: 24 asserted, 2 measured, 2 left out"], done.stderr
    assert f"    {CASES}/test_table.py::test_port_answers_a_first_segment_as_its_state_says" in lines
    assert "    SYN      SYN-ACK" in lines


def test_two_tables_of_one_name_are_refused():
    def item(function, cells):
        mark = SimpleNamespace(args=[Table("a.b", "x", "y", "z", {"row": cells})])
        return SimpleNamespace(nodeid=f"{function}[row]", get_closest_marker=lambda name: mark if name == "table" else None,
                               callspec=SimpleNamespace(params={"row": "row"}, _idlist=["row"]))

    assert len(tables([item("one", {"c": "d"}), item("other", {"c": "d"})])) == 1
    with pytest.raises(ValueError, match="^two tables are called a.b: in one and in other$"):
        tables([item("one", {"c": "d"}), item("other", {"c": "e"})])


@pytest.fixture
def refused(monkeypatch, capsys):
    """What `./kdrift tables WORDS...` writes where it ends with status 2; it finds no table, as if the suite had none."""
    def type_words(*words):
        monkeypatch.setattr("cli.tables.collect", lambda _words: [])
        assert main(["tables", *words]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        return err

    return type_words


def test_a_table_that_there_is_not_is_refused_in_one_line(refused):
    assert refused("no.such") == "kdrift: no table no.such; ./kdrift tables lists them\n"


@pytest.mark.parametrize("output, why", [("none/tables.md", "No such file or directory"), (".", "Is a directory")])
def test_a_page_that_cannot_be_written_is_said_in_one_line(tmp_path, refused, output, why):
    assert refused("--write", "-o", str(tmp_path / output)) == f"kdrift: --output {tmp_path / output}: {why}\n"


def test_the_committed_page_is_what_the_command_writes(tmp_path):
    done = subprocess.run([sys.executable, "-m", "cli", "tables", "--write", "-o", str(tmp_path / "tables.md")], cwd=PROJECT,
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "tables.md").read_text() == (PROJECT / "docs/tables.md").read_text()
