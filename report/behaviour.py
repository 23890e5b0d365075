"""`./kdrift behaviour FILE...`: docs/behaviour.md and docs/behaviour.json, what kernels do, by series, out of results.json of runs.

Each figure is the measurement of a test; report/behaviour.toml says which, and what it means. Of a series in several files the newest
kernel is taken, and of a kernel in several files all its tests. Exit status: 0; 2 for a file that cannot be used, or that has none of it.
"""
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from common.project import PROJECT
from report.known import version_key
from report.results import KernelResult

ROWS = Path(__file__).with_name("behaviour.toml")
DOCS = PROJECT / "docs"
SHORT = 0.1                                 # seconds, below which a time is in milliseconds
HEAD = ("Made by `./kdrift behaviour` from results of the suite; each figure is what the test beside it measured, on Debian's cloud",
        "kernels in a virtual machine. Where a test has several parameter sets, IPv4 and IPv6 among them, and these differ, the lowest",
        "and the highest value stand there; - where the kernel was not measured. The timer wheel may add up to an eighth to a timeout",
        "(HZ 250). A release of an older series may have a fix that the release of a newer series lacks: mind the versions below.",
        "behaviour.json has the same figures, unrounded.")
_GOOD = ("passed", "fixed", "known")        # a known failure has measured what the kernel does as well


class Figure(NamedTuple):
    """What one series did: the lowest and the highest value over a test's parameter sets, the families among them."""

    version: str
    lowest: float
    highest: float
    values: int


def figures(kernels: Sequence[KernelResult]) -> list[dict]:
    """One entry for each row that some kernel has: {"section", "says", "measurement", "unit", "test", "figures": {series: Figure}}."""
    newest = _newest(kernels)
    found = []
    for section in tomllib.loads(ROWS.read_text())["section"]:
        for row in section["rows"]:
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
    """The newest kernel of each series, the oldest series first; one that stands there twice with the tests of both."""
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


def _measured(kernel: KernelResult, name: str, only: str) -> list[tuple[str, dict]]:
    """The measurements of this name in tests whose parameter set begins with `only`, each with its test."""
    return [(test.id, one) for test in kernel.tests if test.outcome in _GOOD and test.id.partition("[")[2].startswith(only)
            for one in test.measurements if one["name"] == name]


def markdown(rows: Sequence[dict]) -> str:
    """The tables, a section each."""
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


def _cell(figure: Figure | None, row: Mapping) -> str:
    """A figure with its unit; of a row with `words`, those of its values 0 and 1."""
    if figure is None:
        return "-"
    words, unit, values = row.get("words"), row["unit"], (figure.lowest, figure.highest)
    if unit == "s" and max(values) < SHORT:
        unit, values = "ms", (figure.lowest * 1000, figure.highest * 1000)
    low, high = (words[int(value)] if words else _number(value) for value in values)
    return (low if low == high else f"{low} to {high}") + ("" if words else f" {unit}")


def _number(value: float) -> str:
    """To three digits: the rest is when within a tick a test began. Counts are whole."""
    if isinstance(value, int) or float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def document(rows: Sequence[dict]) -> str:
    """behaviour.json: {"rows": [...]}, as figures() has them, with each figure's version, lowest, highest and number of values."""
    plain = [row | {"figures": {series: figure._asdict() for series, figure in row["figures"].items()}} for row in rows]
    return json.dumps({"rows": plain}, indent=1) + "\n"
