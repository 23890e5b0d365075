"""Which measurements of a test moved between two kernels."""
from collections.abc import Iterable, Sequence

from report.results import Measurement


def moved(before: Sequence[Measurement], after: Sequence[Measurement], exact: bool = False, complete: bool = True) -> list[tuple[str, str]]:
    """(name, old and new value) of each measurement that differs by more than its tolerance, or at all if `exact`.

    Each side states the resolution of its own kernel's timers and clock (HZ, a real clock). The coarser one decides, so the order of
    the two kernels does not matter. A measurement that only one side has counts as moved if `complete`.
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


def tolerance_of(measurement: Measurement) -> float:
    """The difference that still counts as equal; counts state none."""
    return measurement.get("tolerance") or 0


def _by_name(measurements: Iterable[Measurement]) -> dict[tuple[str, int], Measurement]:
    """By name and number of earlier measurements with that name."""
    found: dict[tuple[str, int], Measurement] = {}
    for one in measurements:
        number = sum(name == one["name"] for name, _number in found)
        found[one["name"], number] = one
    return found


def _value(measurement: Measurement | None) -> str:
    return f"{measurement['value']:.6g} {measurement['unit']}" if measurement else "not measured"
