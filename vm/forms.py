"""Forms of what a guest sends: a guest is not trusted, and what is done with a value of another form is not known."""
import binascii
import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from report.traffic import numbers
from vm.machine import plain
from vm.outlet import Misbehaved

Form = Callable[[Any], bool]
TOP = 1 << 64                               # counters stay below it
END_OF_TIME = 253_402_300_800               # seconds: the year 10000
LARGEST = 64 << 20                          # bytes of a value that comes compressed


def text(value: object) -> bool:
    return isinstance(value, str)


def nothing(value: object) -> bool:
    return value is None


def anything(value: object) -> bool:
    return True


def number(value: object) -> bool:
    """Neither NaN nor larger than a sum of some can be."""
    return isinstance(value, int | float) and -1e100 < value < 1e100


def seconds(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < END_OF_TIME


def whole(value: object) -> bool:
    return isinstance(value, int) and -TOP < value < TOP


def one_of(*words: str) -> Form:
    return lambda value: isinstance(value, str) and value in words


def either(*forms: Form) -> Form:
    return lambda value: any(form(value) for form in forms)


def each(form: Form) -> Form:
    return lambda value: isinstance(value, list | tuple) and all(map(form, value))


def row(*forms: Form) -> Form:
    return lambda value: (isinstance(value, list | tuple) and len(value) == len(forms)
                          and all(form(item) for form, item in zip(forms, value, strict=True)))


def mapping(form: Form) -> Form:
    return lambda value: isinstance(value, dict) and all(text(key) and form(item) for key, item in value.items())


def record(required: Mapping[str, Form], optional: Mapping[str, Form] | None = None) -> Form:
    """A mapping with these names and no others."""
    known = {**required, **(optional or {})}
    return lambda value: (isinstance(value, dict) and required.keys() <= value.keys() <= known.keys()
                          and all(known[name](item) for name, item in value.items()))


def is_base64(value: object) -> bool:
    try:
        return isinstance(value, str) and binascii.a2b_base64(value) is not None
    except ValueError:
        return False


def is_place(value: object) -> bool:
    """The name of a host, which may become part of a file's."""
    return isinstance(value, str) and 0 < len(value) <= 100 and value.isprintable() and "/" not in value


# What the suite's fixtures say of a test (report.results).
CELL = record({**dict.fromkeys(("table", "row", "rows", "column", "columns", "seen"), text), "expected": each(text), "began": seconds})
MEASUREMENT = record({"name": text, "value": number, "unit": text, "tolerance": either(nothing, number)})
TRAFFIC = record({"hosts": mapping(record({"frames": text, "counters": mapping(number)})), "log": each(text), "cells": each(CELL)})


def counts(traffic: Mapping[str, Any]) -> dict[str, float]:
    """report.traffic.numbers().  Raises Misbehaved."""
    try:
        return numbers(**traffic)
    except Exception:                       # of a packet that no host sends, whichever it is
        raise Misbehaved("the guest reports packets that no host sends") from None


def can_be_counted(traffic: Mapping[str, Any]) -> bool:
    try:
        counts(traffic)
    except Misbehaved:
        return False
    return True


def is_traffic(value: object) -> bool:
    return TRAFFIC(value) and can_be_counted(value)     # type: ignore[arg-type]  # it is a mapping


def escaped(value: Any) -> Any:
    """The same without what a terminal would obey; line ends and tabs stay."""
    if isinstance(value, str):
        return value if value.isprintable() else "\n".join(plain(line) for line in value.split("\n"))
    if isinstance(value, dict):
        return {escaped(key): escaped(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(escaped(each) for each in value)
    return value


def unpacked(data: object) -> bytes:
    """What came compressed.  Raises Misbehaved."""
    unpacking = zlib.decompressobj()
    try:
        found = unpacking.decompress(data, LARGEST) if isinstance(data, bytes) else b""
    except zlib.error:
        found = b""
    if not unpacking.eof:
        raise Misbehaved("the guest sent no compressed value, or one that is too large")
    return found


def unpacked_json(data: object) -> Any:
    """Likewise, as JSON.  Raises Misbehaved."""
    try:
        return json.loads(unpacked(data))
    except (ValueError, RecursionError):
        raise Misbehaved("the guest sent no JSON") from None
