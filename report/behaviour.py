"""`./kdrift behaviour FILE...`: docs/behaviour.md and docs/behaviour.json, what each kernel series does, from results.json files.

Each figure is a measurement of a test; report/behaviour.toml lists them and says what they mean. If several files have a series, its
newest kernel counts; if several files have a kernel, all its tests count. Exit status: 0; 2 for a file that is unusable or has no figure.
"""
import json
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict

from common.project import PROJECT
from report.known import version_key
from report.results import KernelResult, Measurement

ROWS = Path(__file__).with_name("behaviour.toml")
DOCS = PROJECT / "docs"
SHORT = 0.1                                 # seconds; shorter times are given in milliseconds
HEAD = ("Made by `./kdrift behaviour` from results of the suite; each figure is what the test beside it measured, on Debian's cloud",
        "kernels in a virtual machine. Where a test has several parameter sets, IPv4 and IPv6 among them, and these differ, the lowest",
        "and the highest value stand there; - where the kernel was not measured. The timer wheel may add up to an eighth to a timeout",
        "(HZ 250). A release of an older series may have a fix that the release of a newer series lacks: mind the versions below.",
        "behaviour.json has the same figures, unrounded.")
_GOOD = ("passed", "fixed", "known")        # a known failure has measured the kernel too


class Figure(NamedTuple):
    """The lowest and highest value that one series gave over a test's parameter sets, IPv4 and IPv6 among them."""

    version: str
    lowest: float
    highest: float
    values: int


class Asked(TypedDict):
    """A row of report/behaviour.toml."""

    says: str
    measurement: str
    only: NotRequired[str]
    words: NotRequired[list[str]]


class Row(Asked):
    """A row and what the kernels gave; `figures` are by series."""

    section: str
    unit: str
    test: str
    figures: dict[str, Figure]


def figures(kernels: Sequence[KernelResult]) -> list[Row]:
    """The rows that some kernel has."""
    newest = _newest(kernels)
    found: list[Row] = []
    for section in tomllib.loads(ROWS.read_text())["section"]:
        rows: list[Asked] = section["rows"]
        for row in rows:
            values: dict[str, list[float]] = {}
            unit = test = ""
            for series, kernel in newest:
                for each, one in _measured(kernel, row["measurement"], row.get("only", "")):
                    values.setdefault(series, []).append(one["value"])
                    unit, test = one["unit"], each.partition("[")[0]
            if values:
                versions = {series: kernel.version or kernel.release for series, kernel in newest}
                seen = {series: Figure(versions[series], min(each), max(each), len(each)) for series, each in values.items()}
                found.append({"section": section["title"], **row, "unit": unit, "test": test, "figures": seen})
    return found


def _newest(kernels: Sequence[KernelResult]) -> list[tuple[str, KernelResult]]:
    """The newest kernel of each series, oldest series first; tests of one kernel from several files are joined."""
    by_series: dict[str, KernelResult] = {}
    for kernel in kernels:
        if not kernel.tests:
            continue
        key = version_key(kernel.version or kernel.release)
        series = f"{key[0]}.{key[1]}"
        other = by_series.get(series)
        if other is None or key > version_key(other.version or other.release):
            by_series[series] = kernel
        elif (kernel.version, kernel.release) == (other.version, other.release):
            by_series[series] = replace(other, tests=other.tests + kernel.tests)
    return sorted(by_series.items(), key=lambda item: version_key(item[0]))


def _measured(kernel: KernelResult, name: str, only: str) -> list[tuple[str, Measurement]]:
    """The measurements of this name, each with its test, in tests whose parameter set begins with `only`."""
    return [(test.id, one) for test in kernel.tests if test.outcome in _GOOD and test.id.partition("[")[2].startswith(only)
            for one in test.measurements if one["name"] == name]


def markdown(rows: Sequence[Row]) -> str:
    """The tables, one per section."""
    versions = {series: figure.version for row in rows for series, figure in row["figures"].items()}
    series = sorted(versions, key=version_key)
    lines = ["# What kernels do", "", *HEAD, "", "Kernels: " + ", ".join(f"{each} ({versions[each]})" for each in series) + "."]
    title = ""
    for row in rows:
        if row["section"] != title:
            title = row["section"]
            lines += ["", f"## {title}", "", f"| what | {' | '.join(series)} | test |", f"| --- |{' ---: |' * len(series)} --- |"]
        cells = " | ".join(_cell(row["figures"].get(each), row) for each in series)
        path, _, name = row["test"].partition("::")
        lines.append(f"| {row['says']} | {cells} | [{name.removeprefix('test_').replace('_', ' ')}](../{path}) |")
    return "\n".join(lines) + "\n"


def _cell(figure: Figure | None, row: Row) -> str:
    """A figure with its unit; a row's `words` replace its values 0 and 1."""
    if figure is None:
        return "-"
    words, unit, values = row.get("words"), row["unit"], (figure.lowest, figure.highest)
    if unit == "s" and max(values) < SHORT:
        unit, values = "ms", (figure.lowest * 1000, figure.highest * 1000)
    low, high = (words[int(value)] if words else _number(value) for value in values)
    return (low if low == high else f"{low} to {high}") + ("" if words else f" {unit}")


def _number(value: float) -> str:
    """Three digits: the rest depends on when within a tick a test began. Counts are whole."""
    if isinstance(value, int) or float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def document(rows: Sequence[Row]) -> str:
    """behaviour.json: {"rows": [...]}, the rows of figures(); each figure has its version, lowest, highest and number of values."""
    plain = [{**row, "figures": {series: figure._asdict() for series, figure in row["figures"].items()}} for row in rows]
    return json.dumps({"rows": plain}, indent=1) + "\n"
