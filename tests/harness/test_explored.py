"""./kdrift validate explores its kernels when its tests are done; machines are stand-ins."""
import json
from pathlib import Path

import pytest

from kernels.extract import Kernel
from report.page import write_page
from report.results import KernelResult, TestResult
from report.summary import summary
from report.verdict import compare_all
from session import explored, plugin
from session.explored import explore_kernels
from vm.qemu import VMError

PLAIN, REFUSED = (lambda step: "done"), (lambda step: "EINVAL" if step["do"] == "route" else "done")


class Bench:
    """A kernel, by version: what a step results in."""

    counters = ("Tcp.InSegs",)
    results, boots = {"6.1": PLAIN, "6.12": REFUSED}, None

    def __init__(self, kernel, directory):
        self.kernel, self.computed_s = kernel, 0.0

    def boot(self):
        if self.boots:
            raise self.boots

    def observe(self, scenarios, seed, checked=False):
        result, nothing = self.results[self.kernel.spec], {"events": [], "sockets": {}, "routes": {}, "hosts": {}, "log": []}
        return [{**nothing, "steps": [[result(step), 0.0] for step in each["steps"]]} for each in scenarios]

    def end(self):
        pass


@pytest.fixture
def after(monkeypatch, tmp_path):
    """The comparison of two kernels, explored for a moment, and what was said."""
    def run(**traits):
        for name, value in traits.items():
            monkeypatch.setattr(Bench, name, value)
        kernels = [KernelResult(spec, spec, version=f"{spec}.1", clock="virtual", tests=[TestResult("t.py::test_a", "passed")])
                   for spec in ("6.1", "6.12")]
        comparisons, said = compare_all(kernels, ["unexplained"], False), []
        files = {spec: Kernel(spec, spec, None, f"{spec}.1", Path(spec), None, spec) for spec in ("6.1", "6.12")}
        explore_kernels(comparisons, files, 0.05, 1, 1, said.append, tmp_path)
        return kernels, comparisons, said

    monkeypatch.setattr("explore.sides.ScenarioBench", Bench)
    return run


def test_what_exploring_finds_is_in_the_verdict_marked_as_explored(after, tmp_path):
    kernels, comparisons, said = after()
    [comparison] = comparisons
    [line] = [line for line in comparison.lines() if "explored" in line]
    assert "explored: explore, route: done -> EINVAL" in line and comparison.failing == {"unexplained": 1}
    assert not comparison.regressions and not comparison.changed
    assert "route" in said[-1] and "done -> EINVAL" in said[-1]
    assert "explored: explore, route" in summary(kernels, comparisons)
    write_page(tmp_path / "index.html", {}, kernels, comparisons)
    assert "explored: explore, route" in (tmp_path / "index.html").read_text()
    [file] = (tmp_path / "explored" / "6.12").glob("kind-*.json")
    assert json.loads(file.read_text())["shrunk"]


def test_kernels_that_do_the_same_add_nothing(after):
    _kernels, [comparison], _said = after(results={"6.1": PLAIN, "6.12": PLAIN})
    assert comparison.changes == [] and comparison.ok


def test_machine_that_is_lost_leaves_the_verdict_as_it_was(after):
    _kernels, [comparison], said = after(boots=VMError("no boot\nmore"))
    assert comparison.changes == [] and said[-1] == "nothing was explored: 6.1: no boot"


def test_kernel_of_a_baseline_is_not_explored(tmp_path):
    comparisons = compare_all([KernelResult(spec, spec, version=f"{spec}.1") for spec in ("6.1", "6.12")], [], False)
    explore_kernels(comparisons, {"6.12": Run.kernel}, 1, 1, 1, pytest.fail, tmp_path)


class Option:
    keyword = markexpr = ""
    file_or_dir, append, devices = (), (), ()
    memory, slots, seed, report, explore_minutes = 512, 1, 1, None, None


class Run:
    label, kernel, clock = "6.12", Kernel("6.12", "6.12", None, "6.12.1", Path("6.12"), None, "6.12"), "virtual"


@pytest.mark.parametrize("options, minutes", [
    ({}, plugin.MINUTES), ({"explore_minutes": 0}, None), ({"explore_minutes": 7}, 7), ({"keyword": "tcp"}, None),
    ({"markexpr": "slow"}, None), ({"file_or_dir": ["tests/tcp"]}, None), ({"keyword": "tcp", "explore_minutes": 1}, 1),
    ({"slots": 0}, None), ({"memory": 1024}, None),
], ids=str)
def test_whole_validation_explores_two_minutes_and_a_part_of_it_none(monkeypatch, options, minutes):
    report = object.__new__(plugin.Report)
    option = type("Chosen", (Option,), options)()
    writer = type("Writer", (), {"line": staticmethod(lambda text: None)})
    report.config = type("Config", (), {"option": option, "get_terminal_writer": staticmethod(lambda: writer)})()
    report.runs, report.comparisons, report.interrupted = [Run()], [object()], False
    asked = []
    monkeypatch.setattr(explored, "explore_kernels", lambda comparisons, kernels, minutes, *_: asked.append(minutes))
    report.explore()
    assert asked == ([] if minutes is None else [minutes])
