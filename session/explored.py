"""After the tests of a validation: explore its kernels for some minutes. What differs goes into the same verdict, marked as explored."""
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from common.errors import CacheError
from common.temporary import GuardedDirectory
from explore.findings import Findings
from explore.sides import boot_all, sides_of
from explore.study import Exploration
from kernels.extract import Kernel
from report.changes import Kind
from report.expected import ExpectedError, explain
from report.verdict import Comparison
from rerun.conversation import Gone
from vm.image import ImageError
from vm.qemu import VMError

_BATCH = 50                                 # scenarios: two batches of a kernel are run and judged within some ten seconds


def explore_kernels(comparisons: Sequence[Comparison], kernels: Mapping[str, Kernel], minutes: float, seed: int, slots: int,
                    say: Callable[[str], None], report: Path | None) -> None:
    """Add to each comparison what exploring finds; the minutes are for all. `kernels` are those that this machine can boot, by label; the
    findings' files go to explored/ in `report`. A machine that is lost ends it, and the verdict stands without."""
    wanted = [each for each in comparisons if {each.old.label, each.new.label} <= kernels.keys()]
    for comparison in wanted:
        pair = f"{comparison.old.label} -> {comparison.new.label}"
        try:
            with GuardedDirectory() as directory:
                _explore(comparison, kernels, 60 * minutes / len(wanted), seed, slots, say, Path(directory))
                if report:
                    shutil.copytree(Path(directory, "found"), report / "explored" / comparison.new.label.replace("/", "-"),
                                    dirs_exist_ok=True)
        except (Gone, VMError, ImageError, CacheError, ExpectedError, OSError) as error:
            say(f"{pair}: exploring ended: {str(error).partition(chr(10))[0]}")


def _explore(comparison: Comparison, kernels: Mapping[str, Kernel], seconds: float, seed: int, slots: int, say: Callable[[str], None],
             directory: Path) -> None:
    until = time.monotonic() + seconds
    labels = (comparison.old.label, comparison.new.label)
    say(f"{' -> '.join(labels)}: exploring for {seconds / 60:g} minutes (--explore-minutes 0 disables this)")
    findings = Findings(directory / "found", "validation")
    sides = sides_of([kernels[label] for label in labels], labels, directory / "machines")
    exploration = Exploration(*sides, findings, seed, slots, say, _BATCH)
    try:
        if trouble := boot_all(sides, slots):
            say(f"nothing was explored: {trouble}")
            return
        exploration.run((until - time.monotonic()) / 60)
    finally:
        exploration.end()
    counts = findings.counts()
    old, new = (side.result for side in sides)
    for each in findings.found.values():
        if not each.vocabulary:
            test = f"explore::{each.found_in}"
            comparison.changes.append(Kind(each.kind, each.rank, [], (test, each.text), explored=counts[each.kind],
                                           expected=explain(old, new)(each.kind, [test])))
            if not each.explained:
                say("\n".join(["", *each.story]))
