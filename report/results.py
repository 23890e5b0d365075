"""The results of a run: what each test did on each kernel.  results.schema.json describes the file."""
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from pytest import CollectReport, TestReport

from report.traffic import numbers

SCHEMA = 3
NOT_RUN = "not run: the run on this kernel ended early"
HOST = "host"                               # blamed for a skipped test, unless the test blames the kernel
# When the phases or attempts of one test disagree, the worst outcome counts.  "known" is a failure or crash that
# known_issues.toml lists for this kernel, "fixed" a test that passed although it is listed.
WORST = {outcome: rank for rank, outcome in enumerate(("passed", "fixed", "skipped", "lost", "known", "failed", "crashed"))}


class Run(TypedDict):
    """How the results came about."""

    started: str                            # UTC, ISO 8601
    duration_s: float
    arguments: list[str]
    python: str
    exit_status: int
    unfinished: NotRequired[str]            # why not all tests had run


class Evidence(TypedDict):
    """What was seen in a failed test."""

    title: str
    text: str


class Capture(TypedDict):
    """What a host captured in a failed test or a table's row: a pcap file, less `cut` earlier packets. It is compressed (RFC 1950) if
    `encoding` is "deflate"."""

    host: str
    base64: str
    cut: int
    addresses: NotRequired[list[str]]       # of the host, as the topology has them
    encoding: NotRequired[str]


class Cell(TypedDict):
    """What one cell of a table showed. `row` and `column` name it, `rows` and `columns` say what they are; `expected` has the texts that
    it may show, none if it is a measurement; `began` is in seconds since the epoch, on the kernel's clock."""

    table: str
    row: str
    rows: str
    column: str
    columns: str
    seen: str
    expected: list[str]
    began: float


class Measurement(TypedDict):
    """A figure of a test; without a `tolerance` every difference counts."""

    name: str
    value: float
    unit: str
    tolerance: float | None


@dataclass
class TestResult:
    """One test on one kernel.  `virtual_s` is time on the kernel's clock, `wall_s` on the host's, both in seconds."""

    __test__ = False                        # pytest must not collect it
    id: str
    outcome: str = "passed"
    began_at: float = 0.0                                   # seconds since the epoch, on the kernel's clock
    virtual_s: float = 0.0
    wall_s: float = 0.0
    promise: str = ""                                       # the test's docstring
    message: str = ""
    traceback: str = ""                                     # of a failure, as pytest prints it
    evidence: list[Evidence] = field(default_factory=list)
    captures: list[Capture] = field(default_factory=list)     # of a failure or a table's row
    measurements: list[Measurement] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)         # of a table's row
    traffic: dict[str, float] = field(default_factory=dict)  # of a test that passed: report.traffic.numbers()
    skip: str = ""                                          # of a skipped one, what lacks something: kernel or host
    attempts: list[str] = field(default_factory=list)       # outcomes of earlier runs in machines that ended early
    issue: str = ""                                         # id of the entry in known_issues.toml, for known and fixed
    candidates: list[str] = field(default_factory=list)     # fixes that the kernel may lack, for failed and crashed
    confirmation: dict[str, Any] = field(default_factory=dict)     # of a regression that was tried again: report.confirmation.Confirmation
    listed: str = ""                                        # id of an entry for this test and kernel with another signature
    signatures: list[str] = field(default_factory=list)     # of its failures (report.signature), one for each phase that failed


@dataclass
class KernelResult:
    """One kernel and its tests.  `error` says why it could not be fetched, booted or kept running; `unrun` are tests left out."""

    spec: str
    label: str
    release: str = ""
    package: str | None = None
    version: str | None = None
    build: str | None = None                # tells builds of one release apart: from the contents, or uname -v
    verified: str = ""                      # by which key its files were verified; empty if by none
    clock: str = "real"
    seed: int = 1                           # of randomness under the virtual clock
    accel: str = "none"
    qemu: str | None = None
    boot_s: float | None = None             # seconds until the machine ran: booted, or restored from its saved state
    first_test_s: float | None = None       # seconds until its first test began
    peak_mb: float | None = None
    error: str | None = None
    counters: list[str] = field(default_factory=list)       # its counter names in /proc/net, if recorded
    tests: list[TestResult] = field(default_factory=list)
    unrun: list[str] = field(default_factory=list)      # ids of chosen tests that did not run: it ended early

    def count(self, *outcomes: str) -> int:
        return sum(test.outcome in outcomes for test in self.tests)

    @property
    def ran(self) -> int:
        """Number of tests that say something about the kernel."""
        return len(self.tests) - self.count("skipped", "lost")

    @property
    def trust(self) -> str:
        """By which key its files were verified, in words."""
        return f"verified by {self.verified}" if self.verified else "not verified"

    def by_id(self) -> dict[str, TestResult]:
        return {test.id: test for test in self.tests}


class Collector:
    """Joins the reports of setup, call and teardown of each test."""

    def __init__(self) -> None:
        self.tests: dict[tuple[str, str], TestResult] = {}
        self.counters: dict[str, list[str]] = {}            # by kernel, its counter names
        self.finished: set[tuple[str, str]] = set()         # the others were interrupted and have no outcome

    def add(self, kernel: str, report: TestReport) -> None:
        """Add a pytest report; `kernel` is its column."""
        test = self.tests.setdefault((kernel, report.nodeid), TestResult(report.nodeid))
        outcome = outcome_of(report)
        test.candidates = getattr(report, "candidates", test.candidates)
        if hasattr(report, "issue"):
            test.issue = report.issue.id
        if hasattr(report, "listed"):
            test.listed = report.listed.id
        if (shown := getattr(report, "signature", "")) and shown not in test.signatures:
            test.signatures.append(shown)
        if getattr(report, "ending", None):
            self._machine_ended(kernel, test, report, outcome)
            return
        if report.when == "setup" and test.outcome == "lost":
            test.outcome, test.message = "passed", ""       # the second attempt begins
            self.finished.discard((kernel, report.nodeid))
        if report.when not in ("setup", "call"):
            self.finished.add((kernel, report.nodeid))
        test.virtual_s = round(test.virtual_s + report.duration, 6)
        test.wall_s = round(getattr(report, "wall_s", test.wall_s + report.duration), 3)
        if outcome != "passed":
            self._worsen(test, outcome, message_of(report))
        properties: list[tuple[str, Any]] = report.user_properties
        if outcome == "skipped":
            test.skip = next((value for name, value in properties if name == "skip"), HOST)
        if outcome in ("failed", "known"):
            test.traceback = test.traceback or str(report.longrepr or "")
            test.evidence += [{"title": title, "text": text} for title, text in report.sections]
        if report.when == "call":
            test.captures = [value for name, value in properties if name == "pcap"]
        if report.when == "setup":
            test.began_at = round(getattr(report, "start", 0.0), 6)
            test.promise = next((value for name, value in properties if name == "promise"), "")
        if report.when == "teardown":
            test.measurements = [value for name, value in properties if name == "measurement"]
            test.cells = [value for name, value in properties if name == "cell"]
            if counters := [value for name, value in properties if name == "counters"]:
                self.counters[kernel] = counters[-1]
            test.traffic = next((numbers(**value) for name, value in properties if name == "traffic"), {})

    def add_uncollected(self, kernel: str, report: CollectReport) -> None:
        """Add pytest's report of a file that could not be collected, or was skipped as a whole."""
        test = self.tests.setdefault((kernel, report.nodeid), TestResult(report.nodeid))
        self._worsen(test, report.outcome, message_of(report))
        test.skip = HOST if report.outcome == "skipped" else ""
        self.finished.add((kernel, report.nodeid))

    def of(self, kernel: str) -> list[TestResult]:
        return [test for key, test in self.tests.items() if key[0] == kernel and key in self.finished]

    def _machine_ended(self, kernel: str, test: TestResult, report: TestReport, outcome: str) -> None:
        self.finished.add((kernel, test.id))
        if report.again:
            # The test runs once more in a restored machine.  A crash remains its outcome, whatever follows.
            self.tests[kernel, test.id] = TestResult(test.id, outcome, message=str(report.longrepr), issue=test.issue, listed=test.listed,
                                                     attempts=[*test.attempts, report.ending], candidates=test.candidates,
                                                     signatures=test.signatures)
        else:
            test.wall_s = round(report.wall_s, 3)
            self._worsen(test, outcome, str(report.longrepr))

    @staticmethod
    def _worsen(test: TestResult, outcome: str, message: str) -> None:
        if WORST[outcome] > WORST[test.outcome]:
            test.outcome, test.message = outcome, message


def outcome_of(report: TestReport) -> str:
    """The outcome in one report: pytest's, or ours if the machine ended or the issue is listed."""
    if hasattr(report, "issue"):
        return "fixed" if report.passed else "known"
    return str(getattr(report, "ending", report.outcome))


def message_of(report: TestReport | CollectReport) -> str:
    """What happened, from a pytest report: the reason of a skip, the last lines of a failure."""
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message if crash else report.longrepr or "")
    if report.when == "collect":
        # The reason comes last, after the traceback.
        reasons = [line.removeprefix("E   ") for line in text.splitlines() if line.startswith("E   ")]
        return reasons[-1] if reasons else text
    return text


def write_json(path: Path, run: Run, kernels: Iterable[KernelResult]) -> None:
    """Write results.json, whole or not at all.  Raises OSError."""
    document = {"schema": SCHEMA, "run": run, "kernels": [asdict(kernel) for kernel in kernels]}
    write_whole(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def write_whole(path: Path, text: str | bytes) -> None:
    """Replace a file in one step: a reader never sees half of it.  Raises OSError."""
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_bytes(text if isinstance(text, bytes) else text.encode(errors="replace"))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
