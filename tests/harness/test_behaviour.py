"""docs/behaviour.md and behaviour.json: figures come from results files alone, and are the same each time."""

import json
from pathlib import Path

from cli.__main__ import main
from report import behaviour
from report.files import write_files
from report.known import version_key
from report.results import KernelResult, TestResult

RUN = {"started": "2026-01-01T00:00:00+00:00", "duration_s": 1.5, "arguments": [], "python": "3.11.2", "exit_status": 0}
TEST = "tests/timewait/test_length.py::test_time_wait_lasts_60_seconds"


def results(directory: Path, version: str, *values: float, name="timewait.length", test=TEST) -> str:
    directory.mkdir()
    measured = [TestResult(f"{test}[{number}]", measurements=[{"name": name, "value": value, "unit": "s", "tolerance": None}])
                for number, value in enumerate(values)]
    write_files(directory, RUN, [KernelResult(version, version, version=version, tests=measured)], [])
    return str(directory / "results.json")


def written(directory: Path, *files: str) -> tuple[str, dict]:
    assert main(["behaviour", *files, "-o", str(directory)]) == 0
    return (directory / "behaviour.md").read_text(), json.loads((directory / "behaviour.json").read_text())


def test_each_series_has_its_figure_and_the_test_that_measured_it(tmp_path):
    text, document = written(tmp_path, results(tmp_path / "b", "6.12.1-1", 60.57, 60.64), results(tmp_path / "a", "6.1.9-1", 60.611))

    assert "Kernels: 6.1 (6.1.9-1), 6.12 (6.12.1-1)." in text
    assert "| TIME_WAIT lasts | 60.6 s | 60.6 s | [time wait lasts 60 seconds](../tests/timewait/test_length.py) |" in text
    [row] = document["rows"]
    assert (row["test"], row["unit"]) == (TEST, "s")
    assert row["figures"]["6.12"] == {"version": "6.12.1-1", "lowest": 60.57, "highest": 60.64, "values": 2}


def test_parameter_sets_that_differ_are_a_range_and_the_newest_kernel_of_a_series_counts(tmp_path):
    files = results(tmp_path / "a", "6.12.9-1", 0.25, 1.02, name="halfopen.syn_ack_repeated"), results(tmp_path / "b", "6.12.1-1", 7.0)

    text, document = written(tmp_path, *files)

    assert "| 0.250 to 1.02 s |" in text
    assert [list(row["figures"]) for row in document["rows"]] == [["6.12"]]


def test_a_short_time_is_in_milliseconds(tmp_path):
    text, _document = written(tmp_path, results(tmp_path / "a", "6.12.1-1", 0.0035, 0.0521))

    assert "| 3.50 to 52.1 ms |" in text


def test_series_are_in_the_order_of_their_versions(tmp_path):
    """6.12 comes after 6.9, whatever the order of the files and of the letters."""
    text, document = written(tmp_path, results(tmp_path / "b", "6.12.1-1", 60.5), results(tmp_path / "a", "6.9.1-1", 60.5))

    assert list(document["rows"][0]["figures"]) == ["6.9", "6.12"]
    assert "| behaviour | 6.9 | 6.12 | test |" in text


def test_a_row_may_be_of_some_parameter_sets_and_in_words(tmp_path, monkeypatch):
    rows = tmp_path / "rows.toml"
    rows.write_text('[[section]]\ntitle = "A"\nrows = [{ measurement = "m", says = "IPv6", only = "ipv6" }, '
                    '{ measurement = "m", says = "In words", words = ["no", "yes"] }]\n')
    monkeypatch.setattr(behaviour, "ROWS", rows)
    (tmp_path / "run").mkdir()
    tests = [TestResult(f"t.py::test_a[{family}-x]", measurements=[{"name": "m", "value": value, "unit": "of 1", "tolerance": None}])
             for family, value in (("ipv4", 0), ("ipv6", 1))]
    write_files(tmp_path / "run", RUN, [KernelResult("6.1.1", "6.1.1", version="6.1.1-1", tests=tests)], [])

    text, _document = written(tmp_path, str(tmp_path / "run" / "results.json"))

    assert "| IPv6 | 1 of 1 |" in text
    assert "| In words | no to yes |" in text


def test_the_same_files_make_the_same_bytes_in_any_order(tmp_path):
    files = [results(tmp_path / version, version, 60.5) for version in ("5.10.1-1", "6.1.1-1", "6.12.1-1")]
    one, other = written(tmp_path, *files), written(tmp_path / "again", *reversed(files))

    assert one == other


def test_what_has_none_of_it_is_refused(tmp_path, capsys):
    assert main(["behaviour", results(tmp_path / "a", "6.1.1-1", 1.0, name="no.such"), "-o", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "behaviour.md").exists()


def test_the_committed_table_is_what_the_command_makes_of_the_committed_figures():
    """Nobody has typed into it: behaviour.json, whose figures a run has measured, makes behaviour.md again."""
    text = (behaviour.DOCS / "behaviour.json").read_text()
    rows = json.loads(text)["rows"]
    for row in rows:
        row["figures"] = {series: behaviour.Figure(**figure) for series, figure in row["figures"].items()}

    assert behaviour.markdown(rows) == (behaviour.DOCS / "behaviour.md").read_text()
    assert behaviour.document(rows) == text
    assert len({series for row in rows for series in row["figures"]}) >= 5
    assert all(version_key(figure.version) for row in rows for figure in row["figures"].values())


def test_every_figure_has_a_test_that_exists():
    for row in json.loads((behaviour.DOCS / "behaviour.json").read_text())["rows"]:
        path, _, name = row["test"].partition("::")
        assert f"def {name}(" in (behaviour.DOCS.parent / path).read_text(), row
