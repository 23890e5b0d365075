"""junit.xml: one test suite per kernel."""
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

from report.results import NOT_RUN, KernelResult, TestResult, write_whole


def write_junit(path: Path, kernels: Iterable[KernelResult]) -> None:
    root = ET.Element("testsuites")
    for kernel in kernels:
        suite = ET.SubElement(root, "testsuite", name=_clean(kernel.label),
                              tests=str(len(kernel.tests) + len(kernel.unrun) + bool(kernel.error)),
                              failures=str(kernel.count("failed", "crashed")),
                              errors=str(kernel.count("lost") + bool(kernel.error)),
                              skipped=str(kernel.count("skipped", "known") + len(kernel.unrun)),
                              time=f"{sum(test.wall_s for test in kernel.tests):.3f}")
        properties = ET.SubElement(suite, "properties")
        for name in ("release", "package", "version", "verified", "clock", "seed", "accel", "qemu"):
            ET.SubElement(properties, "property", name=name, value=_clean(str(getattr(kernel, name) or "")))
        if kernel.error:
            case = ET.SubElement(suite, "testcase", classname=_clean(kernel.label), name="boot")
            ET.SubElement(case, "error", message=_clean(kernel.error.splitlines()[0])).text = _clean(kernel.error)
        for test in kernel.tests:
            _case(suite, test)
        for name in kernel.unrun:
            _case(suite, TestResult(name, "unrun", message=NOT_RUN))
    ET.indent(root)
    write_whole(path, ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n")


def _case(suite: ET.Element, test: TestResult) -> None:
    file, _, name = test.id.partition("::")
    case = ET.SubElement(suite, "testcase", classname=_clean(file.removesuffix(".py").replace("/", ".")), name=_clean(name),
                         time=f"{test.wall_s:.3f}")
    if test.measurements:
        properties = ET.SubElement(case, "properties")
        for seen in test.measurements:
            ET.SubElement(properties, "property", name=_clean(seen["name"]), value=_clean(f"{seen['value']} {seen['unit']}"))
    kinds = {"failed": "failure", "crashed": "failure", "lost": "error", "skipped": "skipped", "known": "skipped", "unrun": "skipped"}
    kind = kinds.get(test.outcome)
    if kind:
        first = test.message.splitlines()[0] if test.message else test.outcome
        if test.issue:
            first = f"known issue {test.issue}: {first}"
        elif test.listed:
            first = f"{first}; signature differs from known issue {test.listed}"
        ET.SubElement(case, kind, message=_clean(first), type=test.outcome).text = _clean(test.message)


def _clean(text: str) -> str:
    """XML 1.0 cannot carry most control characters, and a console may print them."""
    return "".join(char if char >= " " or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)
