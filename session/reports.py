"""A report of pytest's as a guest sends it: what pytest, pytest-xdist and the session would do with any other is not known."""
import json
from typing import Any

from pytest import CollectReport, TestReport

from vm.forms import (
    CELL,
    MEASUREMENT,
    Form,
    anything,
    each,
    either,
    is_base64,
    is_place,
    is_traffic,
    mapping,
    nothing,
    one_of,
    record,
    row,
    seconds,
    text,
    whole,
)
from vm.outlet import Misbehaved

PIECE = "kdrift"                            # as fixtures/transport.py sends it
DEEPEST = 30                                # lists and mappings in each other

# What pytest makes of an exception (_pytest.reports, _report_to_json).
CRASH = {"path": text, "lineno": whole, "message": text}
ENTRY = {"lines": each(text), "reprfuncargs": either(nothing, record({"args": each(row(text, text))})),
         "reprlocals": either(nothing, record({"lines": each(text)})), "reprfileloc": either(nothing, record(CRASH)), "style": text}
TRACEBACK = record({"reprentries": each(either(record({"type": one_of("ReprEntry"), "data": record(ENTRY)}),
                                               record({"type": one_of("ReprEntryNative"), "data": record({"lines": each(text)})}))),
                    "extraline": either(nothing, text), "style": text})
EXCEPTION = record({"reprcrash": either(nothing, record(CRASH)), "reprtraceback": TRACEBACK,
                    "sections": each(row(text, text, lambda value: text(value) and bool(value))),
                    "chain": either(nothing, each(row(TRACEBACK, either(nothing, record(CRASH)), either(nothing, text))))})
SKIP = row(text, either(nothing, whole), text)

# What the suite's fixtures say of a test (report.results).
PROPERTIES: dict[str, Form] = {
    "pcap": record({"host": is_place, "addresses": each(text), "base64": is_base64, "cut": whole}, {"encoding": one_of("deflate")}),
    "cell": CELL, "promise": text, "skip": one_of("host", "kernel"), "counters": each(text),
    "measurement": MEASUREMENT, "traffic": is_traffic}


def is_property(value: object) -> bool:
    return row(text, anything)(value) and PROPERTIES.get(value[0], anything)(value[1])     # type: ignore[index]  # it is a row


FIELDS: dict[str, Form] = {
    "nodeid": text, "outcome": one_of("passed", "failed", "skipped"), "longrepr": either(nothing, text, SKIP, EXCEPTION),
    "sections": each(row(text, text)), "location": SKIP, "keywords": mapping(anything), "when": text, "wasxfail": text,
    "user_properties": each(is_property), **dict.fromkeys(("duration", "start", "stop"), seconds), "result": nothing,
    "worker_id": text, "testrun_uid": text, "$report_type": text, "item_index": whole}
NEEDED = {"TestReport": {"nodeid", "location", "keywords", "outcome", "longrepr", "when", "sections"},
          "CollectReport": {"nodeid", "outcome", "longrepr", "result", "sections"}}


def read_report(data: object, kind: type[TestReport | CollectReport]) -> dict[str, Any]:
    """The report of this kind, as pytest made it in the guest.  Raises Misbehaved."""
    if not isinstance(data, dict):
        raise Misbehaved("the guest sent no report")
    if PIECE in data:
        try:
            piece = json.loads(data[PIECE]) if isinstance(data[PIECE], str) else None
        except (ValueError, RecursionError):
            piece = None
        if not isinstance(piece, dict) or PIECE in piece:
            raise Misbehaved("the guest sent no report, but a piece that is none")
        data = {**{name: value for name, value in data.items() if name != PIECE}, **piece}
    check_depth(data)
    if data.get("$report_type") != kind.__name__ or not NEEDED[kind.__name__] <= data.keys():
        raise Misbehaved("the guest sent no report")
    for name, value in data.items():
        form = FIELDS.get(name) if isinstance(name, str) else None
        # Any other name becomes an attribute, which must not hide one of pytest's.
        if not form(value) if form else not isinstance(name, str) or name.startswith("_") or name == "self" or hasattr(kind, name):
            raise Misbehaved(f"the guest sent a report whose {ascii(name)[:80]} is none")
    if data["outcome"] == "skipped" and "wasxfail" not in data and not SKIP(data["longrepr"]):
        raise Misbehaved("the guest sent a skipped test without a reason")
    return {**data, **{name: tuple(data[name]) for name in ("location", "longrepr") if isinstance(data.get(name), list)}}


def check_depth(data: object) -> None:
    """Raises Misbehaved for what is nested deeper than a report, or is no value that JSON has."""
    level = [data]
    for _ in range(DEEPEST):
        level = [item for value in level if isinstance(value, dict | list | tuple)
                 for item in (value.values() if isinstance(value, dict) else value)
                 if not isinstance(item, str | int | float | None)]
        if not all(isinstance(value, dict | list | tuple) for value in level):
            raise Misbehaved("the guest sent a report with a value that no report has")
        if not level:
            return
    raise Misbehaved("the guest sent a report that is nested too deep")
