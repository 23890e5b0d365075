"""What ./kdrift bench prints of its figures."""

import io
import json

import pytest
from rich.console import Console

from cli.bench import BenchError, Figure, as_table, optional, stored


def lines(*figures, before=None):
    console = Console(file=io.StringIO(), width=120)
    console.print(as_table(figures, before or {}))
    return [line.split() for line in console.file.getvalue().splitlines()]


def test_a_figure_has_median_least_and_most():
    assert lines(Figure("boot", [3.0, 1.0, 2.0], "s"))[1] == ["boot", "2", "1", "3", "s", "3"]


def test_a_peer_that_cannot_run_costs_its_line_alone():
    def fails():
        raise BenchError("no 9p,\nno virtiofs")

    shown = lines(optional("peer", "s", fails), Figure("boot", [1.0], "s"))
    assert shown[1] == ["peer:", "no", "9p,", "no", "virtiofs"]
    assert shown[2][0] == "boot"


def test_ratio_is_to_the_median_of_the_other_run(tmp_path):
    other = tmp_path / "figures.json"
    other.write_text(json.dumps({"figures": [{"name": "boot", "values": [1, 4, 2]}, {"name": "peer", "values": []}]}))
    shown = lines(Figure("boot", [3.0], "s"), Figure("new", [1.0], "s"), before=stored(other))
    assert shown[0][-1] == "ratio"
    assert (shown[1][-1], shown[2][-1]) == ("1.50", "1")     # a figure that the other run lacks has no ratio


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"figures": [{"name": "a"}]}', '{"figures": [{"name": "a", "values": ["b"]}]}'])
def test_a_file_of_other_contents_is_refused(tmp_path, text):
    (tmp_path / "file").write_text(text)
    with pytest.raises(ValueError, match="not printed by ./kdrift bench --json"):
        stored(tmp_path / "file")
