"""Tables as they are run: which rows, what a failed one says and leaves, and what two kernels show of a cell."""

import base64
import io
import json
import subprocess
import sys
import zipfile
import zlib

import pytest
from scapy.utils import RawPcapReader

from common.project import PROJECT
from tests.harness.sessions import CASES, KERNEL, OTHER, one_line, run

CASE = "test_table.py"
FUNCTION = "test_port_answers_a_first_segment_as_its_state_says"
OWN = '''
import os
import pytest
from fixtures.table import Measured, Table

ROWS = Table("own.rows", "row", "column", "nobody", {f"row {number}": {"release": Measured(), "same": "1"} for number in range(14)})


@pytest.mark.table(ROWS)
@pytest.mark.parametrize("row", ROWS.rows)
def test_row(family, row, table):
    for column in table:
        table.saw({seen} if column == "release" and row == "row 3" else "1")
'''


@pytest.fixture
def own(tmp_path):
    """A directory with a table of 14 rows, over both families; row 3 shows another text on each kernel."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own/test_rows.py").write_text(OWN.replace("{seen}", "os.uname().release.partition('-')[0]"))
    return tmp_path / "own"


def chosen(*words, where):
    """The parameters of the tests that pytest collects for these words."""
    done = subprocess.run([PROJECT / "kdrift", "pytest", "--collect-only", "-q", *map(str, words)], cwd=where, capture_output=True,
                          text=True)
    return [line.partition("[")[2].removesuffix("]") for line in done.stdout.splitlines() if "::" in line]


def test_without_a_word_one_row_in_36_runs_of_each_family_others(own):
    (own / "test_rows.py").write_text((own / "test_rows.py").read_text().replace("range(14)", "range(80)"))
    assert chosen(own, where=own) == [f"ipv4-row {number}" for number in (0, 36, 72)] + [f"ipv6-row {number}" for number in (1, 37, 73)]


@pytest.mark.parametrize("words, count", [(["--tables", "some"], 2), (["--tables", "all"], 28), (["--tables=all", "-k", "ipv6"], 14),
                                          (["-k", "ipv6"], 1)], ids=str)
def test_how_much_of_a_table_runs_can_be_said(own, words, count):
    assert len(chosen(own, *words, where=own)) == count


def test_a_row_that_is_named_by_its_id_runs(own):
    names = [f"test_rows.py::test_row[ipv4-row {number}]" for number in (2, 5)]
    assert chosen(*names, where=own) == ["ipv4-row 2", "ipv4-row 5"]


@pytest.mark.parametrize("rows, other", [(1, 0), (3, 1)])
def test_each_family_has_a_row_of_a_small_table(own, rows, other):
    (own / "test_rows.py").write_text((own / "test_rows.py").read_text().replace("range(14)", f"range({rows})"))
    assert chosen(own, where=own) == ["ipv4-row 0", f"ipv6-row {other}"]


def test_cells_and_packets_of_a_row_that_passed_are_in_the_report(tmp_path):
    """On the running kernel; the packets, of each host, are compressed, and no other evidence is there."""
    session = run(tmp_path, CASE, "--tables=all", "-k", "ipv4", kernels=())
    assert session.status == 0, session.output
    [kernel] = session.results["kernels"]
    test = next(test for test in kernel["tests"] if test["id"].endswith("[ipv4-LISTEN]"))
    assert {cell["column"]: cell["seen"] for cell in test["cells"]} == {
        "SYN": "SYN-ACK", "ACK": "RST", "RST": "nothing", "SYN RST": "nothing", "FIN": "nothing", "SYN FIN": "nothing"}
    assert [(capture["host"], capture["encoding"], capture["addresses"][0]) for capture in test["captures"]] == [
        ("client", "deflate", "192.0.2.1"), ("server", "deflate", "192.0.2.2")]
    frames = RawPcapReader(io.BytesIO(zlib.decompress(base64.b64decode(test["captures"][1]["base64"]))))
    times = [about.sec + about.usec / 1e9 for _frame, about in frames]
    assert times[0] < test["cells"][1]["began"] < times[-1]
    assert test["evidence"] == []


def test_a_plain_validate_prints_a_cell_that_differs(own):
    """Without --report: the guests are told to record what is compared."""
    words = ["validate", OTHER, KERNEL, str(own), "-k", "ipv4", "--slots=1"]
    done = subprocess.run([PROJECT / "kdrift", *words], cwd=own, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    line = one_line(done.stdout, "own.rows, release: ")
    assert line.split()[0] == "unexplained", done.stdout
    assert f"release: {OTHER}." in line and f" -> {KERNEL}." in line and "(1 test; row row 3)" in line
    assert one_line(done.stdout, f"{OTHER} -> {KERNEL}: no regression").endswith("14 tests: 13 same, 1 changed")


def test_a_row_that_fails_on_the_new_kernel_is_tried_again(own):
    """A regression that names its cell; the retry finds the row, which a default run may leave out."""
    test = own / "test_rows.py"
    text = test.read_text().replace("os.uname().release.partition('-')[0]", f"'1' if os.uname().release.startswith('{OTHER}.') else '2'")
    test.write_text(text.replace('"release": Measured()', '"release": "1"'))
    words = ["validate", OTHER, KERNEL, f"{test}::test_row[ipv4-row 3]", "--slots=1", "--confirm=2", "--report", str(own / "report")]
    done = subprocess.run([PROJECT / "kdrift", *words], cwd=own, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout
    assert "own.rows, row 3: release: 2, expected 1 (nobody)" in done.stdout, done.stdout
    assert "fails 2 of 2 on new, 0 of 2 on old" in done.stdout, done.stdout
    kernels = json.loads((own / "report/results.json").read_text())["kernels"]
    assert [[cell["seen"] for cell in kernel["tests"][0]["cells"]] for kernel in kernels] == [["1", "1"], ["2", "1"]]


@pytest.mark.parametrize("expected, status, line", [
    ("RST", 0, "NOT REPRODUCED"), ("SYN-ACK", 1, "tcp.first_segment, LISTEN: ACK: RST, expected SYN-ACK (RFC 9293 3.10.7.1 and 3.10.7.2)"),
])
def test_an_exported_row_runs_by_itself_and_names_the_cell_that_is_wrong(tmp_path, expected, status, line):
    """Without pytest; the wrong expectation is put into the file."""
    words = ["export", f"{CASES}/{CASE}::{FUNCTION}[ipv4-LISTEN]", "-o", str(tmp_path / "right.pyz")]
    subprocess.run([PROJECT / "kdrift", *words], cwd=PROJECT, check=True, capture_output=True)
    with zipfile.ZipFile(tmp_path / "right.pyz") as right, zipfile.ZipFile(tmp_path / "row.pyz", "w") as row:
        for name in right.namelist():
            data = right.read(name)
            row.writestr(name, data.replace(b'"ACK": "RST",', f'"ACK": "{expected}",'.encode()) if name.endswith(CASE) else data)
    done = subprocess.run([sys.executable, "-I", "row.pyz"], cwd=tmp_path, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert (done.returncode, done.stderr) == (status, "")
    assert line in " ".join(done.stdout.split())
