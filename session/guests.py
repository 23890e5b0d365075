"""What a guest's pytest says, checked before the session believes it: a guest is a stranger.

pytest-xdist would import a module that a warning names and call what is in it, and take any attribute that a report brings.
"""
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pytest import CollectReport, TestReport

from session.reports import read_report
from vm.forms import escaped
from vm.machine import plain
from vm.outlet import Misbehaved

PASSED_ON = {"collectionstart", "workerready", "workerfinished", "internal_error", "logstart", "logfinish", "testreport", "collectreport",
             "collectionfinish", "runtest_protocol_complete", "warning_recorded", "logwarning"}
OF_THE_SESSION = {"kernel", "ending", "again", "hung", "issue", "listed", "signature", "candidates", "wall_s"}      # set on reports here
REPORTS = {"testreport": TestReport, "collectreport": CollectReport}
EACH = 20                                   # events of a kind that a test may have: three reports, one of its beginning, one of its end
BESIDES = 1000                              # events of a kind that belong to no test, such as warnings


class Guest:
    """One worker.  `asked` are the node ids of its tests."""

    def __init__(self, asked: Sequence[str]) -> None:
        self.asked = set(asked)
        self.collected: list[str] = []
        self.events: Counter[str] = Counter()

    def checked(self, name: object, details: Any) -> tuple[str, dict[str, Any]]:
        """The event as pytest-xdist may have it.  Raises Misbehaved."""
        if not isinstance(name, str) or name not in PASSED_ON or not isinstance(details, dict):
            raise Misbehaved(f"the guest sent {ascii(name)[:80]}, which no worker sends")
        self.events[name] += 1
        if self.events[name] > BESIDES + EACH * len(self.asked):
            raise Misbehaved(f"the guest sent {self.events[name]} events {name} for {len(self.asked)} tests")
        if name == "warning_recorded":
            return name, {**details, "warning_message_data": harmless(details.get("warning_message_data"))}
        if name in ("logstart", "logfinish"):
            self.check_test(details.get("nodeid"))
        if name == "collectionfinish":
            ids = details.get("ids")
            if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
                raise Misbehaved("the guest sent no list of tests")
            self.collected = ids
        if name == "runtest_protocol_complete":
            self.check_index(details.get("item_index"))
        if name in REPORTS:
            if details.keys() != {"data"}:
                raise Misbehaved("the guest sent more than a report, or none")
            report = read_report(details["data"], REPORTS[name])
            self.check_report(name, report)
            details = {"data": escaped(report)}
        return name, details

    def check_test(self, test: object) -> None:
        if test not in self.asked:
            raise Misbehaved(f"the guest claims the test {ascii(test)[:200]}, for which it was not asked")

    def check_index(self, index: object) -> None:
        if not isinstance(index, int) or not 0 <= index < len(self.collected):
            raise Misbehaved(f"the guest reports test number {ascii(index)[:80]} of {len(self.collected)}")
        self.check_test(self.collected[index])

    def check_report(self, event: str, report: dict[str, Any]) -> None:
        if OF_THE_SESSION & report.keys():
            raise Misbehaved("the guest sent a report with marks of the session")
        node = report["nodeid"]
        if event == "testreport":
            index: Any = report.get("item_index")
            self.check_index(index)
            if node != self.collected[index] or report["when"] not in ("setup", "call", "teardown"):
                raise Misbehaved(f"the guest reports {ascii(node)[:200]} as another test")
        elif node and not any(test == node or test.startswith((f"{node}::", f"{node.rstrip('/')}/")) for test in self.asked):
            self.check_test(node)


def harmless(data: object) -> dict[str, Any]:
    """A warning as text, and its category if that is a class of warnings which is imported here."""
    if not isinstance(data, dict):
        raise Misbehaved("the guest sent no warning")
    found = getattr(sys.modules.get(str(data.get("category_module"))), str(data.get("category_class_name")), None)
    category = found if isinstance(found, type) and issubclass(found, Warning) else UserWarning
    return {**data, "message_module": None, "message_str": plain(str(data.get("message_str"))), "category_module": category.__module__,
            "category_class_name": category.__name__}
