"""`./kdrift explore`: find what a new kernel does differently where nobody has written a test."""
import argparse
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cli.refusal import refuse, refuse_error
from common.errors import CacheError, FetchError, SpecError, is_full, trouble_of
from common.project import PROJECT
from common.status import Exit
from common.threads import side_by_side
from explore.bench import ScenarioBench
from explore.findings import Findings
from explore.language import Scenario, ScenarioError, read
from explore.observation import INFO
from explore.study import Exploration, Side
from kernels.cache import Cache
from kernels.extract import Kernel
from kernels.flock import flocked
from kernels.grammar import is_fetched
from kernels.spec import resolve
from netns.scenario.run import TCP_INFO
from report.changes import Kind
from report.expected import ExpectedError
from report.kinds import words
from report.results import KernelResult
from rerun.conversation import Gone
from vm.image import ImageError
from vm.qemu import VMError

LOCK = "lock"                               # in the directory of the findings
_PREFIX = "kdrift-"
# What decides which scenarios there are, and what is seen of them.
_SOURCES = ("explore/*.py", "netns/**/*.py", "report/traffic.py", "report/kinds.py")


def run(options: argparse.Namespace) -> int:
    with ExitStack() as held:
        return _run(options, held)


def _run(options: argparse.Namespace, held: ExitStack) -> int:
    """The kernels are in use until `held` is closed."""
    try:
        scenario = read(options.scenario) if options.scenario else None
        cache = held.enter_context(Cache())
        by_spec = {spec: resolve(spec, cache, offline=options.offline, mirror=options.mirror, allow_unverified=options.allow_unverified)
                   for spec in sorted((options.old, options.new), key=is_fetched)}
        kernels = [by_spec[options.old], by_spec[options.new]]
        findings = Findings(options.report, _key(kernels, options.seed, options.batch))
    except ScenarioError as error:
        return refuse(error)
    except (SpecError, FetchError) as error:
        return refuse_error(error, options.report)
    except OSError as error:
        return refuse(f"--report {options.report}: {error.strerror}", Exit.LOST if is_full(error) else Exit.USAGE)
    if findings.damaged:
        print(f"{options.report}: {findings.damaged} damaged entries are ignored")
    try:
        with _place_for_machines(options.report) as directory:
            return _explore(kernels, findings, directory, options, scenario)
    except BlockingIOError:
        return refuse(f"--report {options.report}: another exploration uses it")
    except ExpectedError as error:
        return refuse(error)
    except (CacheError, ImageError, VMError, Gone, OSError) as error:
        return refuse_error(error, options.report)


@contextmanager
def _place_for_machines(report: Path) -> Iterator[Path]:
    """A directory for this process alone. It is written down in `report`, so that the next exploration there removes it if this one is
    killed. Raises BlockingIOError if there is one already, OSError."""
    lock = report / LOCK
    with flocked(lock, wait=False):
        left = Path(lock.read_text().strip())
        if left.parent == Path(tempfile.gettempdir()) and left.name.startswith(_PREFIX):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as directory:
            lock.write_text(directory)
            yield Path(directory)


def _explore(kernels: Sequence[Kernel], findings: Findings, directory: Path, options: argparse.Namespace,
             scenario: Scenario | None) -> Exit:
    """Raises ExpectedError, CacheError, ImageError, VMError, Gone, OSError."""
    sides = _sides(kernels, (options.old, options.new), directory)
    exploration = Exploration(*sides, findings, options.seed, options.slots, lambda line: print(line, flush=True), options.batch)
    try:
        if trouble := _boot(sides, options.slots):
            return refuse(trouble, Exit.LOST if is_full(trouble) else Exit.NOT_BOOTED)
        if scenario:
            return _tell_one(*exploration.judge_one(scenario))
        exploration.run(options.minutes, options.scenarios)
    finally:
        exploration.end()
    _tell(findings)
    if not findings.batches:
        return Exit.NOTHING_JUDGED
    unexplained = any(not each.explained and not each.vocabulary for each in findings.found.values())
    return Exit.REGRESSION if unexplained else Exit.OK


def _key(kernels: Sequence[Kernel], seed: int, batch: int) -> str:
    """Identifies an exploration: the kernels, the scenarios, and their language."""
    digest = hashlib.sha256(repr([*(kernel.key for kernel in kernels), seed, batch]).encode())
    for pattern in _SOURCES:
        for file in sorted(PROJECT.glob(pattern)):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _sides(kernels: Sequence[Kernel], specs: Sequence[str], directory: Path) -> tuple[Side, Side]:
    """One kernel that is on both sides has one machine."""
    benches: dict[str, ScenarioBench] = {}
    for number, kernel in enumerate(kernels):
        benches.setdefault(kernel.key, ScenarioBench(kernel, directory / str(number)))
    old, new = (Side(benches[kernel.key], KernelResult(spec, spec, kernel.release, kernel.package, kernel.version, clock="virtual"))
                for kernel, spec in zip(kernels, specs, strict=True))
    return old, new


def _boot(sides: Sequence[Side], slots: int) -> str:
    """Boot the machines; why one could not be booted, or nothing."""
    benches = list(dict.fromkeys(side.bench for side in sides))

    def boot(bench: ScenarioBench) -> str:
        try:
            bench.boot()
        except (Gone, VMError, ImageError, CacheError, OSError) as error:
            return f"{bench.kernel.release}: {trouble_of(error)}"
        return ""

    def end() -> None:
        for bench in benches:
            bench.end()

    troubles = dict(side_by_side(boot, benches, slots, end))
    trouble = next(filter(None, (troubles[bench] for bench in benches)), "")
    for side in sides:
        side.result.counters = [*side.bench.counters, *(f"{INFO}{name}" for name in TCP_INFO)]
    return trouble


def _tell_one(kinds: Sequence[Kind], lines: Sequence[str]) -> Exit:
    print("\n".join(lines))
    behaviour = [kind for kind in kinds if not kind.vocabulary]
    for kind in behaviour:
        print(f"{'explained' if kind.expected else 'unexplained':11} {words(kind.key)}" + (f": {kind.expected}" if kind.expected else ""))
    if not behaviour:
        print("no difference")
    return Exit.REGRESSION if any(not kind.expected for kind in behaviour) else Exit.OK


def _tell(findings: Findings) -> None:
    counts = findings.counts()
    found = sorted(findings.found.values(), key=lambda each: (each.vocabulary, bool(each.explained), -counts[each.kind], each.kind))
    for each in found:
        if each.vocabulary:
            continue
        print(f"{'explained' if each.explained else 'unexplained':11} {each.id}  {each.text} ({counts[each.kind]} scenarios)"
              + (f": {each.explained}" if each.explained else ""))
        if not each.explained:
            print("\n".join(f"    {line}" for line in each.story))
    print(f"{sum(each.vocabulary for each in found)} counters and log lines that only one of the kernels has; all findings: "
          f"{findings.directory}")
