"""`./kdrift bisect TEST GOOD BAD`: the first kernel that behaves differently."""
import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

from bisection.drive import Bisection, EndUnusable, Found
from bisection.machines import Machines
from bisection.question import FAILS, NoDifference, ask
from bisection.state import State, StateError, opened
from cli.refusal import refuse
from cli.run import absent_names, absolute, found
from common.errors import FetchError, NoSpaceError, SpecError
from common.status import Exit
from kernels.cache import Cache
from kernels.debian import Archive
from kernels.extract import Kernel
from kernels.modules import build_of
from kernels.packages import debian_version_key
from kernels.progress import Reporter
from kernels.spec import resolve
from kernels.versions import Available, between, in_archive, in_directory
from report.known import KnownIssuesError, listed
from report.results import TestResult, write_whole
from reproduce.collect import CannotExport, collect, is_outside
from vm.qemu import VMError, check_device, qemu

RESULT = "result.txt"                       # beside bisection.state.NAME


class Unnamed(Exception):
    """What was named is no single test; one line says so."""


def run(options: argparse.Namespace) -> int:
    try:
        options.report.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return refuse(f"--report {options.report}: {error.strerror}")
    try:
        test, file = one_test(options.test)
        qemu()
        for device in options.devices:
            check_device(device)
        return bisect(options, test, file)
    except (Unnamed, SpecError, StateError, VMError) as error:
        return refuse(str(error).partition("\n")[0])
    except NoDifference as error:
        return refuse(error, Exit.NOTHING_JUDGED)
    except NoSpaceError as error:
        return refuse(error, Exit.LOST)
    except (EndUnusable, FetchError) as error:
        return refuse(error, Exit.NOT_BOOTED)
    except OSError as error:
        return refuse(f"{error.filename or options.report}: {error.strerror}", Exit.LOST)
    except KeyboardInterrupt:
        return refuse(f"interrupted; the same command goes on from {options.report}", Exit.INTERRUPTED)


def bisect(options: argparse.Namespace, test: str, file: Path) -> int:
    """Raises what run() refuses."""
    progress = Reporter()
    with Cache(say=progress.say) as cache:
        def kernel(spec: str, held: Cache) -> Kernel:
            return resolve(spec, held, offline=options.offline, progress=progress, mirror=options.mirror)

        specs = [absolute(spec) for spec in (options.good, options.bad)]
        kernels = [kernel(spec, cache) for spec in specs]
        check_ends(*kernels)
        ends = [Available(each.version or each.release, spec) for each, spec in zip(kernels, specs, strict=True)]
        steps = all_steps(ends, options.dir, Archive(cache, offline=options.offline, progress=progress, mirror=options.mirror))
        asked = {"test": test, "good": ends[0].version, "bad": ends[1].version, "measurement": options.measurement,
                 "change": options.change, "directory": options.dir and str(options.dir.absolute()),
                 "the test's file": hashlib.sha256(file.read_bytes()).hexdigest()[:16]}
        state = opened(options.report, asked)
        print(f"{test}: {len(steps) - 2} kernels between {steps[0].version} and {steps[-1].version}", flush=True)
        with cache.scratch() as directory:
            machines = Machines(test, directory, kernel, options.devices, ["--tables=all"])
            bisection = Bisection(steps, machines, state, lambda old, new: ask(options.measurement, options.change, old, new),
                                  options.slots, options.confirm, lambda line: print(line, flush=True))
            try:
                result = bisection.run()
            finally:
                machines.end()
    lines = [*direction(result, ends, state), *result.lines(), *known(test, result, state)]
    write_whole(options.report / RESULT, "\n".join([test, *lines]) + "\n")
    print("\n".join(lines))
    return Exit.OK if result.certain else Exit.REGRESSION


def one_test(word: str) -> tuple[str, Path]:
    """The id of the test that a word names, and its file.  Raises Unnamed."""
    place = found(word, Path.cwd())
    if not place:
        raise Unnamed(f"{Path(word.partition('::')[0]).absolute()}: No such file or directory")
    if absent := absent_names(place):
        raise Unnamed(f"{word}: the file has no {absent[0]}")
    if is_outside(place):                   # only a machine's pytest collects it
        return place, Path(place.partition("::")[0])
    try:
        tests = collect([place])
    except CannotExport as error:
        raise Unnamed(error) from None
    if len(tests) > 1:
        raise Unnamed(f"{word} means {len(tests)} tests: name one of them, such as {tests[0].nodeid}")
    return tests[0].nodeid, tests[0].path


def check_ends(good: Kernel, bad: Kernel) -> None:
    """Raises SpecError for two that are the same."""
    if build_of(good) == build_of(bad):
        raise SpecError(f"{good.spec} and {bad.spec} are the same kernel, {good.version or good.release}")


def all_steps(ends: Sequence[Available], directory: Path | None, archive: Archive) -> list[Available]:
    """The kernels from the older end to the newer one.  Raises SpecError, FetchError."""
    old, new = sorted(ends, key=lambda each: debian_version_key(each.version))
    if old.version == new.version:
        raise SpecError(f"both ends have the version {old.version}: nothing is between them")
    others = [*in_archive(archive), *(in_directory(directory) if directory else [])]
    return [old, *between(others, old.version, new.version), new]


def direction(result: Found, ends: Sequence[Available], state: State) -> list[str]:
    """A line if the kernel that was called good fails and the other does not."""
    good, bad = (state.steps[each.version].result for each in ends)
    assert good and bad
    if good.outcome in FAILS and bad.outcome == "passed":
        return [f"{ends[0].version} was called good, but fails, and {ends[1].version} passes"]
    return []


def known(test: str, result: Found, state: State) -> list[str]:
    """What known_issues.toml has for a failure on one of the last two."""
    for number in (result.at.old, result.at.new):
        version = result.steps[number].version
        shown: TestResult | None = state.steps[version].result
        try:
            issues = listed(test, version) if shown and shown.outcome in FAILS else []
        except (KnownIssuesError, ValueError):
            issues = []
        if issues:
            return [f"known issue: {issue}" for issue in issues]
    return []
