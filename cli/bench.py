"""`./kdrift bench [--kernel SPEC] [--runs N]`: how fast the suite is on this machine.

Every figure is the median of N runs; a benchmark measures, it does not judge.
"""
import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cli.refusal import refuse
from common.errors import FetchError, SpecError
from common.project import PROJECT
from common.status import Exit
from kernels.cache import Cache
from kernels.spec import resolve

LEAST_RUNS = 5
CASES = "tests/harness/cases/test_bench.py"
# Two hosts, one link, two addresses each: what netns.build does for fixtures.topologies.LAN, as one would type it.
BY_HAND = """
ip netns add {a}; ip netns add {b}
ip link add name to-b netns {a} type veth peer name to-a netns {b}
for n in {a} {b}; do ip -n $n link set lo up; done
ip -n {a} address add 192.0.2.1/24 dev to-b; ip -n {b} address add 192.0.2.2/24 dev to-a
ip -n {a} address add 2001:db8::1/64 dev to-b nodad; ip -n {b} address add 2001:db8::2/64 dev to-a nodad
ip -n {a} link set to-b up; ip -n {b} link set to-a up
ip netns del {a}; ip netns del {b}
"""


def run(options: argparse.Namespace) -> int:
    if options.runs < LEAST_RUNS:
        return refuse(f"--runs {options.runs}: at least {LEAST_RUNS}")
    try:
        with Cache() as cache:
            resolve(options.kernel, cache)
        lines = measure(options.kernel, options.runs)
    except (SpecError, FetchError, BenchError) as error:
        return refuse(error, Exit.USAGE if isinstance(error, SpecError) else Exit.LOST)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("figure", "median", "least", "most", "unit", "runs"):
        table.add_column(heading, justify="left" if heading in ("figure", "unit") else "right")
    for name, values, unit in lines:
        cells = [f"{value:.4g}" for value in (statistics.median(values), min(values), max(values))]
        table.add_row(name, *cells, unit, str(len(values)))
    Console(highlight=False).print(table)
    return Exit.OK


class BenchError(Exception):
    """A run that was to be measured failed."""


def measure(spec: str, runs: int) -> list[tuple[str, list[float], str]]:
    """The table's lines: name, values, unit."""
    session(spec, "-k", "nothing")          # leaves a saved state
    cold = [session(spec, "-k", "nothing", "--fresh-boot") for _ in range(runs)]
    restored = [session(spec) for _ in range(runs)]
    idle = [next(test for test in kernel["tests"] if "idle" in test["id"]) for kernel in restored]
    lines = [
        ("cold boot to the machine running", [kernel["boot_s"] for kernel in cold], "s"),
        ("cold boot to the first test", [kernel["first_test_s"] for kernel in cold], "s"),
        ("restoring to the machine running", [kernel["boot_s"] for kernel in restored], "s"),
        ("restoring to the first test", [kernel["first_test_s"] for kernel in restored], "s"),
        ("virtual seconds per wall second, idle", [test["virtual_s"] / test["wall_s"] for test in idle], ""),
        ("peak memory of a cold machine", [kernel["peak_mb"] for kernel in cold], "MB"),
        ("peak memory of a restored machine", [kernel["peak_mb"] for kernel in restored], "MB"),
    ]
    ours, by_hand = topologies(runs)
    lines += [("two hosts built and torn down", ours, "ms"), ("the same by ip commands", by_hand, "ms"),
              ("ip commands / ours", [theirs / own for theirs, own in zip(by_hand, ours, strict=True)], "")]
    if vng := shutil.which("vng"):
        lines.append(("virtme-ng, cold boot of the same kernel to a command", virtme_ng(vng, spec, runs), "s"))
    return lines


def session(spec: str, *options: str) -> dict[str, Any]:
    """One pytest session in a process of its own; the kernel's part of its results."""
    with tempfile.TemporaryDirectory() as directory:
        words = [sys.executable, "-m", "pytest", "-q", "-c", "pytest.ini", f"--kernel={spec}", f"--report={directory}", CASES, *options]
        run = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True)
        if run.returncode:
            last = (run.stdout + run.stderr).strip().splitlines()[-1]
            raise BenchError(f"the measured session failed with status {run.returncode}: {last}")
        kernel: dict[str, Any] = json.loads(Path(directory, "results.json").read_text())["kernels"][0]
        return kernel


def topologies(runs: int) -> tuple[list[float], list[float]]:
    """Milliseconds for each of ours and by hand, in turn, in namespaces of a process of its own."""
    program = "import json, cli.bench; print(json.dumps(cli.bench.topologies_here(%d)))" % runs
    run = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True)
    if run.returncode:
        raise BenchError(f"the topologies could not be built: {run.stderr.strip().splitlines()[-1]}")
    return tuple(json.loads(run.stdout))


def topologies_here(runs: int) -> tuple[list[float], list[float]]:
    """The same in this process, which leaves the host's namespaces for it."""
    import netns
    from fixtures.topologies import LAN
    netns.isolate.enter()

    def ours() -> None:
        with netns.build(LAN):
            pass

    def by_hand() -> None:
        subprocess.run(["sh", "-e", "-c", BY_HAND.format(a="a", b="b")], check=True)

    ours()
    pairs = [(milliseconds(ours), milliseconds(by_hand)) for _ in range(runs)]
    return [own for own, _ in pairs], [theirs for _, theirs in pairs]


def virtme_ng(vng: str, spec: str, runs: int) -> list[float]:
    """Seconds until virtme-ng has booted the kernel, run `true` and ended."""
    with Cache() as cache:
        kernel = resolve(spec, cache)
        words = [vng, "--run", str(kernel.vmlinuz), "--disable-kvm", "--", "true"]

        def boot() -> None:
            run = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
            if run.returncode:
                raise BenchError(f"virtme-ng did not boot {kernel.release}: {(run.stderr or run.stdout).strip()[-200:]}")

        return [milliseconds(boot) / 1000 for _ in range(runs)]


def milliseconds(action: Callable[[], None]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000
