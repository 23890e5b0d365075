"""index.html: the report as one page that needs no network and no other file.

Its parts are in page/. A content security policy names the one style and the one script by their hashes: nothing that
a kernel or a test printed can run or load anything, whatever the page does with it.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

from report.changes import counted, plural
from report.classes import NEW
from report.kinds import column_of, words
from report.known import load
from report.results import KernelResult, Run, TestResult, write_whole
from report.table import SIGNS, issue_text
from report.verdict import Comparison

PARTS = Path(__file__).with_name("page")
# In load order: a file sees what earlier ones declare.
SCRIPTS = (
    *("dom.js", "filter.js", "data.js", "verdict.js", "matrix.js", "keys.js", "cells.js", "tables.js"),
    *("pcap.js", "packets.js", "ladder.js", "plot.js", "capture.js", "test.js", "measured.js", "environment.js", "main.js"),
)


def write_page(path: Path, run: Run, kernels: Sequence[KernelResult], comparisons: Sequence[Comparison]) -> None:
    """Write the page of a run; `run` is the "run" of results.json.  Raises OSError."""
    style = (PARTS / "page.css").read_text()
    script = "".join((PARTS / name).read_text() for name in SCRIPTS)
    parts = {
        "style": style,
        "script": script,
        "data": _json(_data(run, kernels, comparisons)),
        "policy": f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; "
        "base-uri 'none'; form-action 'none'",
    }
    write_whole(
        path, re.sub(r"@(style|script|data|policy)@", lambda mark: parts[mark[1]], (PARTS / "index.html").read_text())
    )


def _source(text: str) -> str:
    """The source expression that allows exactly this element's text. Source: Content Security Policy Level 3, 2.3.1."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(data: object) -> str:
    """For a script element: no `<`, which could end it or begin a comment; ASCII, so no lone surrogates."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _data(run: Run, kernels: Sequence[KernelResult], comparisons: Sequence[Comparison]) -> dict[str, object]:
    appeared: dict[str, list[str]] = {}
    for each in comparisons:
        for kind in each.changes:
            appeared.setdefault(kind.key, []).append(each.new.label)
    promises = {_function(test): test.promise for kernel in kernels for test in kernel.tests if test.promise}
    return {
        "run": run,
        "signs": {outcome: sign for outcome, (sign, _style) in SIGNS.items()},
        "promises": promises,
        "tables": list(_tables(kernels).values()),
        "kernels": [vars(kernel) | {"tests": [_test(test, kernel) for test in kernel.tests]} for kernel in kernels],
        "comparisons": [_comparison(each, appeared) for each in comparisons],
    }


def _function(test: TestResult) -> str:
    return test.id.partition("[")[0]


def _tables(kernels: Sequence[KernelResult]) -> dict[str, dict[str, str]]:
    """By name, what the rows and the columns of each table are."""
    return {
        cell["table"]: {"name": cell["table"], "rows": cell["rows"], "columns": cell["columns"]}
        for kernel in kernels for test in kernel.tests for cell in test.cells
    }


def _test(test: TestResult, kernel: KernelResult) -> dict[str, object]:
    """Fields that are not empty. All kernels and parameter sets share the promise, kept once; traffic is only compared."""
    found = {name: value for name, value in vars(test).items() if value and name not in ("promise", "traffic", "cells")}
    if test.cells:
        found |= {"table": test.cells[0]["table"], "row": test.cells[0]["row"], "set": parameters_besides(test.cells[0]["row"], test.id),
                  "cells": [[cell["column"], cell["seen"], cell["expected"], cell["began"]] for cell in test.cells]}
    if test.issue:
        found["issue"] = issue_text(test, kernel)
    elif test.listed:
        found["listed"] = [f"{issue}" for issue in load() if issue.id == test.listed] or [test.listed]
    if test.measurements:
        found["measurements"] = [{name: _number(value) for name, value in one.items()} for one in test.measurements]
    return found


def parameters_besides(row: str, test: str) -> str:
    """The parameters in a test's id without the row, as pytest writes both: `ipv4` of `test_x[ipv4-LISTEN]`."""
    parameters = test.partition("[")[2].removesuffix("]")
    row = row.encode("unicode_escape").decode()
    return re.sub(rf"^{re.escape(row)}(-|$)|-{re.escape(row)}(?=-|$)", "", parameters, count=1)


def _number(value: object) -> object:
    """Text if not finite, since JSON has no infinity; the page does not draw text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _kinds(comparison: Comparison, appeared: dict[str, list[str]]) -> list[dict[str, object]]:
    """The kinds of change; tests as indexes into the newer kernel's list, which are shorter than their names."""
    places = {test.id: place for place, test in enumerate(comparison.new.tests)}
    return [
        {
            "text": kind.text,
            "column": column_of(kind.key),
            "vocabulary": kind.vocabulary,
            "why": str(kind.expected or ""),
            "tests": [places[test] for test in kind.tests],
            "example": kind.example[1],
            "follows": [f"{words(key)} ({plural(count)})" for key, count in kind.follows.most_common()],
            "kernels": appeared[kind.key],
        }
        for kind in comparison.changes
    ]


def _comparison(comparison: Comparison, appeared: dict[str, list[str]]) -> dict[str, object]:
    return {
        "old": comparison.old.label,
        "new": comparison.new.label,
        "head": comparison.headline(),
        "state": comparison.state,
        "regressions": [_change(old, new, new, comparison.new) for old, new in comparison.regressions],
        "gone": [_change(old, new, new, comparison.new) for old, new in comparison.gone],
        "fixes": [_change(old, new, old, comparison.old) for old, new in comparison.fixes],
        "known": [_change(old, new, new, comparison.new) for old, new in comparison.known],
        "drift": comparison.drift,
        "changed": counted(comparison.changes) if comparison.changes else "",
        "changes": _kinds(comparison, appeared),
        "fresh": [_change(old, new, old, comparison.old) for old, new in comparison.pairs(NEW)],
        "incomplete": comparison.incomplete(),
        "lacking": [{"why": why, "tests": names} for why, names in comparison.lacking.items()],
        "unjudged": [{"why": why, "tests": names} for why, names in comparison.unjudged.items()],
    }


def _change(old: TestResult, new: TestResult, bad: TestResult, kernel: KernelResult) -> dict[str, object]:
    """One test on both kernels, and the reason of the bad outcome."""
    return {
        "id": new.id,
        "was": old.outcome,
        "now": new.outcome,
        "why": issue_text(bad, kernel) or bad.message.partition("\n")[0],
        "candidates": new.candidates,
    }
