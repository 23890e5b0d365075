"""results.ktap: the format of the kernel's own selftests.  Source: Documentation/dev-tools/ktap.rst."""
from collections.abc import Iterable, Sequence
from pathlib import Path

from report.results import NOT_RUN, KernelResult, TestResult, write_whole

_OK = ("passed", "fixed", "skipped", "known")


def write_ktap(path: Path, kernels: Sequence[KernelResult]) -> None:
    lines = ["KTAP version 1", f"1..{len(kernels)}"]
    for number, kernel in enumerate(kernels, 1):
        lines += [f"  {line}" for line in _kernel(kernel)]
        bad = kernel.count("failed", "crashed", "lost") or kernel.unrun or kernel.error
        lines.append(f"{'not ok' if bad else 'ok'} {number} {_name(kernel.label)}")
    write_whole(path, "\n".join(lines) + "\n")


def _kernel(kernel: KernelResult) -> Iterable[str]:
    yield "KTAP version 1"
    yield f"1..{bool(kernel.error) + len(kernel.tests) + len(kernel.unrun)}"
    yield f"# {_name(kernel.trust)}"
    if kernel.error:
        yield from (f"# {_name(line)}" for line in kernel.error.splitlines())
        yield "not ok 1 boot # ERROR"
    for number, test in enumerate(kernel.tests, 1 + bool(kernel.error)):
        if test.outcome not in _OK:
            yield from (f"# {_name(line)}" for line in test.message.splitlines())
            if test.listed:
                yield f"# signature differs from known issue {_name(test.listed)}"
        yield f"{'ok' if test.outcome in _OK else 'not ok'} {number} {_name(test.id)}{_directive(test)}"
    for number, name in enumerate(kernel.unrun, 1 + bool(kernel.error) + len(kernel.tests)):
        yield f"not ok {number} {_name(name)} # ERROR {NOT_RUN}"


def _directive(test: TestResult) -> str:
    # XFAIL is an expected failure.
    reason = _name(" ".join(test.message.split()))
    return {"skipped": f" # SKIP {reason}", "known": f" # XFAIL {test.issue}"}.get(test.outcome, "")


def _name(text: str) -> str:
    """`#` begins a directive, and parsers do not expect control characters."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text).replace("#", "_")
