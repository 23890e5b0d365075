"""Which measurements of a test moved between two kernels."""
from collections.abc import Iterable, Sequence


def moved(before: Sequence[dict], after: Sequence[dict], exact: bool = False, complete: bool = True) -> list[tuple[str, str]]:
    """(name, what it was and is) of each measurement that differs by more than its tolerance, `exact` by anything.

    Each side states what its own kernel's timers and clock can tell (HZ, a real clock): the coarser one decides, so that it makes no
    difference which side is the older one. A measurement of one side alone is one that moved,
    unless they are not `complete`.
    """
    old, new = _by_name(before), _by_name(after)
    found = []
    for name, number in dict.fromkeys([*old, *new]):
        was, now = old.get((name, number)), new.get((name, number))
        if was is None or now is None:
            if complete:
                found.append((name, f"{_value(was)} -> {_value(now)}"))
            continue
        tolerance = 0 if exact else max(tolerance_of(was), tolerance_of(now))
        if was["unit"] != now["unit"]:
            found.append((name, f"{_value(was)} -> {_value(now)}"))
        elif was["value"] != now["value"] and not abs(now["value"] - was["value"]) <= tolerance:
            digits = ".12g" if exact else ".6g"
            stated = "" if exact else f" (tolerance {tolerance:.3g})"
            found.append((name, f"{was['value']:{digits}} -> {now['value']:{digits}} {now['unit']}{stated}"))
    return found


def tolerance_of(measurement: dict) -> float:
    """By how much it may differ and still mean the same; none is stated for what is counted."""
    return measurement.get("tolerance") or 0


def _by_name(measurements: Iterable[dict]) -> dict[tuple[str, int], dict]:
    """By name, and how often it stood there before."""
    found: dict[tuple[str, int], dict] = {}
    for one in measurements:
        number = sum(name == one["name"] for name, _number in found)
        found[one["name"], number] = one
    return found


def _value(measurement: dict | None) -> str:
    return f"{measurement['value']:.6g} {measurement['unit']}" if measurement else "not measured"
