"""sensitivity.json and sensitivity.html: the scores, and the survivors with what was changed."""
import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

from kernels.extract import Kernel
from report.results import write_whole
from sensitivity.score import FALSE_ALARM, Verdict, checked, scores

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin-bottom: 2rem }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #8884; vertical-align: top; overflow-wrap: anywhere }
td.number, th.number { text-align: right; white-space: nowrap }
code { font-size: .9em }
"""


def write_page(directory: Path, kernel: Kernel, verdicts: Sequence[Verdict]) -> None:
    rows = scores(verdicts)
    document = {"kernel": {"release": kernel.release, "package": kernel.package, "version": kernel.version},
                "scores": [{**asdict(each), "share": each.share} for each in rows], "mutants": [asdict(each) for each in verdicts]}
    write_whole(directory / "sensitivity.json", json.dumps(document, indent=1) + "\n")
    parts = ["<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
             f"<title>kdrift sensitivity</title><style>{_STYLE}</style><h1>Sensitivity on {escape(kernel.release)}</h1>",
             "<p>Share: killed mutants among those that a test executes. "
             "For survivors: the number of tests run, and of tests that reach the mutant.</p>",
             f"<p>{escape(checked(verdicts))}.</p>",
             _table(("", "killed", "survived", "not reached", "no start", "share"),
                    [(each.name, each.killed, each.survived, each.not_reached, each.no_start,
                      "" if each.share is None else f"{each.share:.0%}") for each in rows])]
    for title, outcome, columns in (("Survivors", "survived", ("mutant", "text", "tests", "reaching")),
                                    ("Killed", "killed", ("mutant", "text", "by", "how")),
                                    ("No start", "no start", ("mutant", "text", "how")),
                                    ("False alarms", FALSE_ALARM, ("mutant", "by", "how")),
                                    ("Not reached", "not reached", ("mutant", "text"))):
        chosen = [each for each in verdicts if each.outcome == outcome]
        table = _table(columns, [tuple(getattr(each, column) for column in columns) for each in chosen])
        parts.append(f"<details{' open' if outcome == 'survived' else ''}>"
                     f"<summary><h2 style='display:inline'>{title}: {len(chosen)}</h2></summary>{table}</details>")
    write_whole(directory / "sensitivity.html", "\n".join(parts) + "</html>\n")


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(column)}" for column in columns)
    body = "".join("<tr>" + "".join(f"<td{' class=number' if isinstance(cell, int) else ''}>{escape(str(cell))}" for cell in row)
                   for row in rows)
    return f"<table><thead><tr>{head}<tbody>{body}</table>"
