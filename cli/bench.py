"""`./kdrift bench`: how fast the suite is on this machine.

Every figure is the median of N runs, those of whole suites of one; a benchmark measures, it does not judge.
"""
import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cli.refusal import refuse, refuse_error
from common.errors import FetchError, SpecError
from common.project import PROJECT
from common.status import Exit
from kernels.cache import Cache
from kernels.spec import resolve

LEAST_RUNS = 5
CASES = "tests/harness/cases/test_bench.py"
ONE_TEST = "advmss and ipv4"
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


@dataclass
class Figure:
    """A line of the table.  `note` says why it has no values."""

    name: str
    values: list[float]
    unit: str
    note: str = ""


class BenchError(Exception):
    """A run that was to be measured failed."""


def run(options: argparse.Namespace) -> int:
    if options.runs < LEAST_RUNS:
        return refuse(f"--runs {options.runs}: at least {LEAST_RUNS}")
    try:
        before = stored(options.against) if options.against else {}
        with Cache() as cache:
            resolve(options.kernel, cache)
        figures = measure(options.kernel, options.runs, options.whole)
    except (SpecError, FetchError, BenchError) as error:
        return refuse_error(error, options.kernel)
    except ValueError as error:
        return refuse(f"--against {options.against}: {error}")
    if options.json:
        machine = {"processors": os.cpu_count(), "load": os.getloadavg()[0]}
        print(json.dumps({"machine": machine, "figures": [asdict(figure) for figure in figures]}, indent=1))
    else:
        Console(highlight=False).print(as_table(figures, before))
    return Exit.OK


def stored(path: Path) -> dict[str, float]:
    """The medians that `bench --json` has printed, by name.  Raises ValueError."""
    try:
        document = json.loads(path.read_bytes())
        return {each["name"]: statistics.median(map(float, each["values"])) for each in document["figures"] if each["values"]}
    except OSError as error:
        raise ValueError(error.strerror) from None
    except (ValueError, RecursionError, KeyError, TypeError):
        raise ValueError("not printed by ./kdrift bench --json") from None


def as_table(figures: Sequence[Figure], before: Mapping[str, float]) -> Table:
    """`before` are medians; with some the last column is how many times as much each figure is now."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("figure", "median", "least", "most", "unit", "runs", *["ratio"] * bool(before)):
        table.add_column(heading, justify="left" if heading in ("figure", "unit") else "right")
    for figure in figures:
        values = figure.values
        if not values:
            table.add_row(f"{figure.name}: {figure.note}")
            continue
        cells = [f"{value:.4g}" for value in (statistics.median(values), min(values), max(values))]
        ratio = f"{statistics.median(values) / before[figure.name]:.2f}" if before.get(figure.name) else ""
        table.add_row(figure.name, *cells, figure.unit, str(len(values)), *[ratio] * bool(before))
    return table


def measure(spec: str, runs: int, whole: bool) -> list[Figure]:
    """The table's lines.  Raises BenchError."""
    session(spec, "-k", "nothing")          # leaves the saved states
    cold = [session(spec, "-k", "nothing", "--fresh") for _ in range(runs)]
    restored = [session(spec) for _ in range(runs)]
    idle = [next(test for test in kernel["tests"] if "idle" in test["id"]) for kernel in restored]
    named = [typed(spec, "-k", ONE_TEST) for _ in range(runs)]
    family = [typed(spec, "-k", "pmtu") for _ in range(runs)]
    figures = [
        Figure("one test by name, from Enter to the prompt", [wall for wall, _ in named], "s"),
        Figure("the same, processor time", [computed for _, computed in named], "s"),
        Figure("-k pmtu", [wall for wall, _ in family], "s"),
        Figure("cold boot to the machine running", [kernel["boot_s"] for kernel in cold], "s"),
        Figure("cold boot to the first test", [kernel["first_test_s"] for kernel in cold], "s"),
        Figure("restoring to the machine running", [kernel["boot_s"] for kernel in restored], "s"),
        Figure("restoring to the first test", [kernel["first_test_s"] for kernel in restored], "s"),
        Figure("virtual seconds per wall second, idle", [test["virtual_s"] / test["wall_s"] for test in idle], ""),
        Figure("peak memory of a cold machine", [kernel["peak_mb"] for kernel in cold], "MB"),
        Figure("peak memory of a restored machine", [kernel["peak_mb"] for kernel in restored], "MB"),
    ]
    ours, by_hand = topologies(runs)
    figures += [Figure("two hosts built and torn down", ours, "ms"), Figure("the same by ip commands", by_hand, "ms"),
                Figure("ip commands / ours", [theirs / own for theirs, own in zip(by_hand, ours, strict=True)], "")]
    if vng := shutil.which("vng"):
        figures.append(optional("virtme-ng, cold boot of the same kernel to a command", "s", lambda: virtme_ng(vng, spec, runs)))
    return figures + (suites(spec) if whole else [])


def optional(name: str, unit: str, values: Callable[[], list[float]]) -> Figure:
    """Of a peer, which may be unable to run here: that costs its own line alone."""
    try:
        return Figure(name, values(), unit)
    except (BenchError, OSError, subprocess.SubprocessError) as error:
        return Figure(name, [], unit, " ".join(str(error).split()))


def suites(spec: str) -> list[Figure]:
    """The whole suite, once on each number of slots; the efficiency is the time on one slot, divided by slots and time on several."""
    slots = range(1, (os.cpu_count() or 1) + 1)
    seconds = [typed(spec, f"--slots={each}")[0] for each in slots]
    figures = [Figure(f"whole suite, slots: {each}", [wall], "s") for each, wall in zip(slots, seconds, strict=True)]
    return figures + [Figure(f"efficiency, slots: {each}", [seconds[0] / each / wall], "")
                      for each, wall in zip(slots[1:], seconds[1:], strict=True)]


def typed(spec: str, *options: str) -> tuple[float, float]:
    """Seconds of wall and of processor time that ./kdrift takes for some tests.  Raises BenchError."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([PROJECT / "kdrift", "pytest", "-q", f"--kernel={spec}", *options], cwd=PROJECT, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()[-1]
        raise BenchError(f"{' '.join(options)}: status {done.returncode}: {last}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


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
