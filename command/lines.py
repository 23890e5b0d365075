"""Results in a command's output: KTAP, TAP, and the lines of the kernel's networking scripts.

Sources: Documentation/dev-tools/ktap.rst, testanything.org; tools/testing/selftests/net/lib.sh, log_test().
"""
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from report.results import Measurement

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# The runner of kselftest puts "# " before the lines of a test of its own.
TAP = re.compile(r"(?P<margin>(?:# |[ \t])*)(?P<bad>not )?ok (?P<number>\d+)(?:\s+-)?(?=\s|$)\s*(?P<name>[^#]*?)\s*"
                 r"(?:#\s*(?P<directive>SKIP|TODO|XFAIL|TIMEOUT|ERROR)\b\s*(?P<why>.*))?(?:#.*)?", re.IGNORECASE)
SCRIPT = re.compile(r"\s*(?:# )*\s*TEST: (?P<name>.*?)\s*\[\s*(?P<outcome>OK|PASS|FAIL|SKIP|XFAIL|XPASS|WARN)\s*\]\s*")
MEASURE = re.compile(r"\s*(?:# )*# ?kdrift-measure: (?P<name>\S+) (?P<value>[-+.\deE]+) (?P<unit>\S+)(?: (?P<tolerance>[.\deE]+))?\s*")
OUTCOMES = {"OK": "passed", "PASS": "passed", "XFAIL": "passed", "FAIL": "failed", "XPASS": "failed", "WARN": "failed", "SKIP": "skipped"}


@dataclass
class SubTest:
    """One result; `parts` are the names of the tests around it and its own."""

    parts: tuple[str, ...]
    outcome: str                            # passed, failed, skipped
    message: str = ""


@dataclass
class Findings:
    """What a command has reported."""

    tests: dict[str, SubTest] = field(default_factory=dict)       # by name, each once
    measurements: list[Measurement] = field(default_factory=list)


def read_lines(lines: Iterable[str]) -> Findings:
    """Read a command's output."""
    found, measurements = [], []
    nested: list[tuple[int, SubTest]] = []     # TAP results that may belong to one further left: its line comes after theirs
    for text in lines:
        line = COLOUR.sub("", text.rstrip("\r\n"))
        if measure := MEASURE.fullmatch(line):
            measurements += measurement_of(measure)
        elif script := SCRIPT.fullmatch(line):
            found.append(SubTest((script["name"],), OUTCOMES[script["outcome"]]))
        elif tap := TAP.fullmatch(line):
            margin, result = len(tap["margin"].expandtabs(4)), tap_result(tap)
            inner = [each for depth, each in nested if depth > margin]
            nested = [(depth, each) for depth, each in nested if depth <= margin]
            for each in inner:
                each.parts = (*result.parts, *each.parts)
            if inner and (result.outcome != "failed" or any(each.outcome == "failed" for each in inner)):
                nested += [(margin, each) for each in inner]        # they say it all
            else:
                nested += [(margin, each) for each in inner] + [(margin, result)]
                found.append(result)
    return Findings(named(found), measurements)


def tap_result(line: re.Match[str]) -> SubTest:
    """Of a line of TAP. TODO and XFAIL are expected failures; a skipped test is `ok`, whatever else it says."""
    directive = (line["directive"] or "").upper()
    if directive == "SKIP":
        outcome = "skipped"
    elif directive in ("TODO", "XFAIL"):
        outcome = "passed"
    else:
        outcome = "failed" if line["bad"] or directive in ("TIMEOUT", "ERROR") else "passed"
    return SubTest((line["name"] or line["number"],), outcome, line["why"] or "")


def measurement_of(line: re.Match[str]) -> list[Measurement]:
    """None if its value is no number."""
    try:
        tolerance = float(line["tolerance"]) if line["tolerance"] else None
        return [{"name": line["name"], "value": float(line["value"]), "unit": line["unit"], "tolerance": tolerance}]
    except ValueError:
        return []


def named(tests: Iterable[SubTest]) -> dict[str, SubTest]:
    """By name; a name that comes again gets a number, so that each stays the same from kernel to kernel."""
    seen: Counter[str] = Counter()
    found = {}
    for test in tests:
        name = " / ".join(" ".join(part.split()) for part in test.parts)
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name} ({seen[name]})"] = test
    return found
