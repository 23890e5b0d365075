"""kcidb.json: a submission to KCIDB, the kernel community's database of results, in its schema 5.3.

It is written, never sent.  Source: the schema of kcidb-io, v05_03.
"""
import hashlib
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from report.known import load
from report.results import NOT_RUN, KernelResult, Run, TestResult, write_whole

ORIGIN = "kdrift"
BOOT = "boot"                               # the path of a test in KCIDB's catalogue
_STATUS = {"passed": "PASS", "fixed": "PASS", "failed": "FAIL", "known": "FAIL", "crashed": "FAIL", "skipped": "SKIP", "lost": "ERROR",
           "unrun": "ERROR"}


def write_kcidb(path: Path, run: Run, kernels: Sequence[KernelResult]) -> None:
    tests, builds, incidents = [], [], []
    for kernel in kernels:
        build = f"{ORIGIN}:{_digest(kernel.package, kernel.version, kernel.release or kernel.label, kernel.build)}"
        builds.append({"id": build, "checkout_id": f"{build}-source", "origin": ORIGIN, "architecture": platform.machine(),
                       "comment": " ".join(filter(None, (kernel.package, kernel.version))) or kernel.label,
                       # Who built it knows how that went; what has run was built.
                       **({"status": "PASS"} if _has_run(kernel) else {}),
                       "misc": {"release": kernel.release, "verified": kernel.verified or None}})
        boot = TestResult(BOOT, "passed") if _has_run(kernel) else TestResult(BOOT, "lost", message=kernel.error or "it did not start")
        for test in (boot, *kernel.tests, *(TestResult(name, "unrun", message=NOT_RUN) for name in kernel.unrun)):
            entry = _test(run, kernel, build, test)
            tests.append(entry)
            if test.issue and test.outcome == "known":
                incidents.append({"id": f"{entry['id']}-{test.issue}", "origin": ORIGIN, "issue_id": f"{ORIGIN}:{test.issue}",
                                  "issue_version": 1, "test_id": entry["id"], "present": True})
    seen = {incident["issue_id"] for incident in incidents}
    document = {
        "version": {"major": 5, "minor": 3},
        # A distribution's kernel comes from a package, not a commit: only its version is known.
        "checkouts": [{"id": build["checkout_id"], "origin": ORIGIN, "comment": build["comment"]} for build in _once(builds)],
        "builds": _once(builds), "tests": tests,
        "issues": [{"id": f"{ORIGIN}:{issue.id}", "version": 1, "origin": ORIGIN, "comment": issue.subject, "culprit": {"code": True}}
                   for issue in load() if f"{ORIGIN}:{issue.id}" in seen],
        "incidents": incidents,
    }
    write_whole(path, json.dumps(document, indent=1) + "\n")


def _has_run(kernel: KernelResult) -> bool:
    return bool(kernel.tests or kernel.boot_s) and not (kernel.error and not kernel.ran)


def _test(run: Run, kernel: KernelResult, build: str, test: TestResult) -> dict[str, Any]:
    file, _, name = test.id.partition("::")
    words = ["kdrift", *file.removeprefix("tests/").removesuffix(".py").split("/"), "".join(
        char if char.isalnum() or char in "_-" else "_" for char in name)]
    dotted = BOOT if test.id == BOOT else ".".join(filter(None, words))
    entry = {"id": f"{build}-{_digest(run['started'], kernel.label, test.id)}", "build_id": build, "origin": ORIGIN, "path": dotted,
             "status": _STATUS[test.outcome], "start_time": run["started"], "duration": test.wall_s, "comment": test.id,
             "misc": {"outcome": test.outcome, "clock": kernel.clock, "seed": kernel.seed, "accel": kernel.accel, "qemu": kernel.qemu,
                      "virtual_s": test.virtual_s, "measurements": test.measurements, "signatures": test.signatures}}
    if test.message:
        entry["log_excerpt"] = test.message[:16000]
    return entry


def _digest(*words: object) -> str:
    return hashlib.sha256("\0".join(map(str, words)).encode()).hexdigest()[:16]


def _once(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({entry["id"]: entry for entry in entries}.values())
