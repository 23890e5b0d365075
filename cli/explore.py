"""`./kdrift explore`: find what a new kernel does differently where nobody has written a test."""
import argparse
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cli.refusal import refuse, refuse_error
from common.errors import CacheError, FetchError, SpecError, is_full
from common.project import PROJECT
from common.status import Exit
from explore.alone import Alone
from explore.draft import NoFigures, draft, name_of
from explore.findings import DamagedFinding, Findings, found_in
from explore.language import Scenario, ScenarioError, read
from explore.sides import boot_all, sides_of
from explore.study import Exploration
from kernels.cache import Cache
from kernels.extract import Kernel
from kernels.flock import flocked
from kernels.grammar import is_fetched
from kernels.spec import resolve
from report.changes import Kind
from report.expected import ExpectedError
from report.kinds import words
from rerun.conversation import Gone
from vm.image import ImageError
from vm.qemu import VMError

LOCK = "lock"                               # in the directory of the findings
_PREFIX = "kdrift-"
# What decides which scenarios there are, and what is seen of them.
_SOURCES = ("explore/*.py", "netns/**/*.py", "report/traffic.py", "report/kinds.py")


def run(options: argparse.Namespace) -> int:
    if options.promote is not None:
        return _promote(options)
    if len(options.kernels) not in (1, 2):
        return refuse("name two kernels to compare, or one to explore alone; see ./kdrift explore --help")
    with ExitStack() as held:
        return _run(options, held)


def _run(options: argparse.Namespace, held: ExitStack) -> int:
    """The kernels are in use until `held` is closed."""
    try:
        scenario = read(options.scenario) if options.scenario else None
        cache = held.enter_context(Cache())
        by_spec = {spec: resolve(spec, cache, offline=options.offline, mirror=options.mirror, allow_unverified=options.allow_unverified)
                   for spec in sorted(options.kernels, key=is_fetched)}
        kernels = [by_spec[spec] for spec in options.kernels]
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


def _promote(options: argparse.Namespace) -> Exit:
    """Write the draft of a test from a finding."""
    if options.kernels or options.scenario:
        return refuse("--promote takes a finding of --report, and nothing else")
    try:
        finding = found_in(options.report, options.promote)
        target = options.report / f"{name_of(finding)}.py"
        target.write_text(draft(finding))
    except NoFigures as error:
        return refuse(error)
    except FileNotFoundError:
        return refuse(f"--promote: {options.report} has no finding {options.promote}")
    except DamagedFinding as error:
        return refuse(error)
    except OSError as error:
        return refuse(f"--report {options.report}: {error.strerror}")
    print(f"{target}: name the promise, and move it to the family in tests/ that it belongs to")
    return Exit.OK


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
    sides = sides_of([kernels[0], kernels[-1]], [options.kernels[0], options.kernels[-1]], directory)
    kind = Exploration if len(kernels) == 2 else Alone
    exploration = kind(*sides, findings, options.seed, options.slots, lambda line: print(line, flush=True), options.batch)
    try:
        if trouble := boot_all(sides, options.slots):
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
