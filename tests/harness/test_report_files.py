"""The files that a run leaves, and runs read back from them: to compare with, and to join."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import jsonschema
import pytest

from cli.merge import merge
from report.files import write_files
from report.private import Hidden
from report.reading import SCHEMA_FILE, ResultsError, read
from report.results import KernelResult, TestResult
from report.table import kernel_lines
from report.verdict import compare_all

PROJECT = Path(__file__).parents[2]
RUN = {"started": "2026-01-01T00:00:00+00:00", "duration_s": 1.5, "arguments": [], "python": "3.11.2", "exit_status": 0}
HOSTILE = "a | b # c\n</script>\x00\x1b[31m `d` <e> \N{SNOWMAN}"


def kernel(label, *tests, **facts):
    return KernelResult(label, label, release=f"{label}.0", version=f"{label}.0-1", accel="tcg", tests=list(tests), **facts)


def measured(value, tolerance=None):
    return TestResult("t.py::test_time", measurements=[{"name": "m", "value": value, "unit": "s", "tolerance": tolerance}])


@pytest.fixture
def old():
    return kernel("6.1", TestResult("t.py::test_a"), TestResult("t.py::test_b[ipv4-x]", "failed", message=HOSTILE), measured(1.0))


@pytest.fixture
def new():
    return kernel("6.12", TestResult("t.py::test_a", "crashed", message=HOSTILE, attempts=["crashed"]), TestResult("t.py::test_b[ipv4-x]"),
                  measured(1.2), TestResult("t.py::test_s", "skipped", message="no tun # here"),
                  TestResult("t.py::test_k", "known", message=HOSTILE, issue="raw-hdrincl-ihl-lt5"))


@pytest.fixture
def written(tmp_path, old, new):
    write_files(tmp_path, RUN, [old, new], compare_all([old, new]))
    return tmp_path


def test_what_was_written_reads_back_the_same(written, old, new):
    assert read(written / "results.json") == (RUN, [old, new])


def test_the_published_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA_FILE.read_text()))


def test_nothing_but_whole_files_is_left(written):
    assert sorted(path.name for path in written.iterdir()) == ["index.html", "junit.xml", "kcidb.json", "results.json", "results.ktap",
                                                               "summary.md"]


def test_summary_has_the_verdict_first_and_nothing_becomes_markup(written):
    lines = (written / "summary.md").read_text().splitlines()

    assert lines[2] == "**❌ 6.1 -\\> 6.12: 1 regression, 5 tests: 1 regression, 1 drifted, 1 fixed, 2 not judged**"
    [row] = [line for line in lines if line.startswith("| t.py::test\\_a ")]
    assert row.replace("\\|", "").count("|") == 5
    assert "</script>" not in "".join(lines)


def test_ktap_is_a_nested_document_whose_names_hold_no_directive(written):
    lines = (written / "results.ktap").read_text().splitlines()

    assert lines[:2] == ["KTAP version 1", "1..2"]
    assert [line for line in lines if not line.startswith("  ")][2:] == ["not ok 1 6.1", "not ok 2 6.12"]
    assert "  ok 4 t.py::test_s # SKIP no tun _ here" in lines
    assert "  ok 5 t.py::test_k # XFAIL raw-hdrincl-ihl-lt5" in lines
    assert all(line.isprintable() for line in lines)


def test_kcidb_refers_only_to_what_it_holds(written):
    document = json.loads((written / "kcidb.json").read_text())

    assert document["version"] == {"major": 5, "minor": 3}
    builds, tests = ({entry["id"] for entry in document[kind]} for kind in ("builds", "tests"))
    assert len(builds) == 2 and len(tests) == 10
    assert {test["build_id"] for test in document["tests"]} == builds
    assert {build["checkout_id"] for build in document["builds"]} == {each["id"] for each in document["checkouts"]}
    [incident] = document["incidents"]
    assert incident["test_id"] in tests
    assert [issue["id"] for issue in document["issues"]] == [incident["issue_id"]] == ["kdrift:raw-hdrincl-ihl-lt5"]


@pytest.fixture
def early(tmp_path, old):
    """The files of a run in which one kernel ended early and another did not boot."""
    new = kernel("6.12", TestResult("t.py::test_a"), unrun=["t.py::test_b[ipv4-x]", HOSTILE])
    dead = kernel("6.18", error=f"no console\n{HOSTILE}")
    write_files(tmp_path, RUN, [old, new, dead], compare_all([old, new, dead]))
    return tmp_path


def test_what_did_not_run_is_in_every_file(early):
    _old, new, dead = ET.parse(early / "junit.xml").getroot()
    assert (new.get("tests"), new.get("skipped"), len(new.findall("testcase/skipped"))) == ("3", "2", 2)
    assert (dead.get("tests"), dead.get("errors"), len(dead.findall("testcase"))) == ("1", "1", 1)

    lines = (early / "results.ktap").read_text().splitlines()
    assert "  1..3" in lines and "  not ok 2 t.py::test_b[ipv4-x] # ERROR not run: the run on this kernel ended early" in lines
    assert "  not ok 1 boot # ERROR" in lines
    assert all(line.isprintable() for line in lines)
    assert [line for line in lines if not line.startswith("  ")][2:] == ["not ok 1 6.1", "not ok 2 6.12", "not ok 3 6.18"]

    document = json.loads((early / "kcidb.json").read_text())
    tests = document["tests"]
    assert [build.get("status") for build in document["builds"]] == ["PASS", "PASS", None]
    assert [test["status"] for test in tests if test["path"] == "boot"] == ["PASS", "PASS", "ERROR"]
    assert [(test["comment"], test["status"]) for test in tests if test["status"] == "ERROR"] == [
        ("t.py::test_b[ipv4-x]", "ERROR"), (HOSTILE, "ERROR"), ("boot", "ERROR")]


def test_junit_counts_a_known_issue_as_skipped(written):
    _old, suite = ET.parse(written / "junit.xml").getroot()

    assert (suite.get("failures"), suite.get("skipped"), suite.get("errors")) == ("1", "2", "0")


@pytest.mark.parametrize("text, complaint", [
    ("", "not JSON: "),
    ('{"schema": 3, "run', "not JSON: "),
    ("[]", "not a kdrift results file"),
    ('{"schema": "2"}', "not a kdrift results file"),
    ('{"schema": 4}', "schema 4, but this kdrift reads schema 3: update kdrift"),
    ('{"schema": 1}', "schema 1, but this kdrift reads schema 3: run the kernel again"),
    ('{"schema": 3, "run": {}, "kernels": []}', "$.run: "),
])
def test_a_file_that_is_none_is_refused_in_one_line(tmp_path, text, complaint):
    file = tmp_path / "results.json"
    file.write_text(text)

    with pytest.raises(ResultsError) as failure:
        read(file)

    assert f"{file}: {complaint}" in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("words", [["merge"], ["pytest", "--validate", "--kernel=6.12", "--baseline"]], ids=" ".join)
def test_a_damaged_file_is_exit_status_2(tmp_path, words):
    file = tmp_path / "results.json"
    file.write_text("{}")

    ended = subprocess.run([sys.executable, "-m", "cli", *words, str(file)], cwd=PROJECT, capture_output=True, text=True)

    assert ended.returncode == 2
    [line] = [line for line in (ended.stdout + ended.stderr).splitlines() if line]
    assert line.endswith(f"{file}: not a kdrift results file")


def test_runs_of_separate_jobs_become_one(tmp_path, old, new):
    for name, kernels in ("a", [old]), ("b", [new]):
        (tmp_path / name).mkdir()
        write_files(tmp_path / name, RUN, kernels, [])

    run, kernels = merge([tmp_path / "a/results.json", tmp_path / "b/results.json"])

    assert kernels == [old, new]
    assert run["duration_s"] == 3.0


def test_tests_of_one_kernel_from_several_jobs_come_together(tmp_path, old):
    more = kernel("6.1", TestResult("t.py::test_c"))
    for name, each in ("a", old), ("b", more):
        (tmp_path / name).mkdir()
        write_files(tmp_path / name, RUN, [each], [])

    _run, [joined] = merge([tmp_path / "a/results.json", tmp_path / "b/results.json"])

    assert [test.id for test in joined.tests] == [test.id for test in old.tests + more.tests]


def test_a_test_in_two_files_is_refused(written):
    with pytest.raises(ResultsError, match=r"6\.1 has t\.py::test_a in another file as well"):
        merge([written / "results.json", written / "results.json"])


def test_a_label_is_no_markup_in_the_summary(tmp_path):
    """It heads a table where nothing is compared."""
    label = "</h2> <script> [a](b) `c` &lt; #"
    write_files(tmp_path, RUN, [KernelResult(label, label, tests=[TestResult("t.py::test_a", "failed", message="x")])], [])

    [heading] = [line for line in (tmp_path / "summary.md").read_text().splitlines() if "h2" in line and line.startswith("## ")]
    assert heading == r"## \</h2\> \<script\> \[a\](b) \`c\` \&lt; \#"


def test_every_file_says_how_each_kernel_was_verified(tmp_path):
    kernels = [KernelResult("6.1", "6.1", verified="key ABC"), KernelResult("mine", "mine")]
    write_files(tmp_path, RUN, kernels, [])

    assert [each.verified for each in read(tmp_path / "results.json")[1]] == ["key ABC", ""]
    assert [each["misc"]["verified"] for each in json.loads((tmp_path / "kcidb.json").read_text())["builds"]] == ["key ABC", None]
    for name, first, second in (("summary.md", "key ABC", "not verified"), ("results.ktap", "verified by key ABC", "not verified"),
                                ("junit.xml", 'name="verified" value="key ABC"', 'name="verified" value=""'),
                                ("index.html", '"verified":"key ABC"', '"verified":""')):
        text = (tmp_path / name).read_text()
        assert 0 <= text.find(first) < text.rfind(second), name
    assert [line.rpartition("; ")[2] for line in kernel_lines(kernels)] == ["verified by key ABC)", "not verified)"]


def test_what_is_shared_says_nothing_of_the_machine(tmp_path):
    """What stands in messages, arguments and specifications; a comparison has the same."""
    old, new = (kernel(label, TestResult("tests/tcp/test_a.py::test_a", outcome,
                                         message="/home/jane/kdrift/.venv/lib/x.py: no /proc/net/snmp on secretbox"),
                       error="/home/jane/linux/bzImage is truncated") for label, outcome in (("6.1", "passed"), ("6.12", "failed")))
    old.spec = "/home/jane/linux/bzImage,modules=/home/jane/mods"
    run = {**RUN, "arguments": ["--kernel=/srv/jane's/bzImage,modules=/srv/m/lib=new", "--report", "/tmp/x/out", "--ssh=jane@lab1:22",
                                "tests/tcp/test_a.py"]}
    hidden = Hidden({"/home/jane/kdrift": "kdrift", "/home/jane": "~"}, {"jane", "secretbox"})

    write_files(tmp_path, hidden.run(run), *hidden.copied([old, new], compare_all([old, new])))

    for file in tmp_path.iterdir():
        assert not [word for word in ("/home", "/srv", "/tmp", "jane", "secretbox") if word in file.read_text()], file.name
    found, kernels = read(tmp_path / "results.json")
    assert found["arguments"] == ["--kernel=bzImage,modules=lib=new", "--report", "out", "--ssh=lab1:22", "tests/tcp/test_a.py"]
    assert kernels[0].spec == "bzImage,modules=mods"
    assert kernels[1].tests[0].message == "kdrift/.venv/lib/x.py: no /proc/net/snmp on HIDDEN"
    assert old.tests[0].message.startswith("/home/jane"), "what is printed stays as it is"


def test_what_is_shared_names_tests_as_they_are_named_elsewhere():
    """One that `merge` and --baseline find by its id, whatever words are in that."""
    tests = ["tests/tcp/test_a.py::test_a[jane]", "/home/jane/my/test_b.py::test_b[/home/jane/x]"]
    old = kernel("6.1", *(TestResult(test, traffic={"a sends tcp S": 1}) for test in tests), unrun=tests[:1])
    new = kernel("6.12", *(TestResult(test, traffic={"a sends tcp S": 2}) for test in tests))
    hidden = Hidden({"/home/jane/my": "own/my", "/home/jane": "~"}, {"jane"})

    (was, now), [comparison] = hidden.copied([old, new], compare_all([old, new]))

    shown = ["tests/tcp/test_a.py::test_a[jane]", "own/my/test_b.py::test_b[/home/jane/x]"]
    assert [test.id for test in was.tests] == [test.id for test in now.tests] == shown
    assert was.unrun == shown[:1]
    assert comparison.changed == set(shown)


@pytest.mark.parametrize("more, kept", [([], False), (["--with-paths"], True)], ids=["", "--with-paths"])
def test_a_report_holds_no_path_unless_asked(tmp_path, more, kept):
    words = ["./kdrift", "pytest", "-q", "tests/tcp/test_advmss.py", "--report", str(tmp_path / "out"), *more]
    subprocess.run(words, cwd=PROJECT, capture_output=True, text=True)

    texts = "".join(file.read_text() for file in (tmp_path / "out").iterdir())
    assert (str(tmp_path) in texts) is kept
    assert kept or str(PROJECT) not in texts
    assert '"arguments"' in texts
