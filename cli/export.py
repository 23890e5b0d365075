"""`./kdrift export`: a test as one file that needs neither kdrift nor pytest."""
import argparse
import shlex
from pathlib import Path

from cli.refusal import refuse
from cli.run import found
from common.errors import CacheError, FetchError, SpecError
from common.project import PROJECT
from common.status import Exit
from kernels.cache import Cache
from kernels.spec import resolve
from reproduce.check import check
from reproduce.collect import CannotExport, Manifest, collect, describe_all
from reproduce.empty import visit
from reproduce.pack import write
from reproduce.text import disposable
from reproduce.transform import TooNew
from vm.image import ImageError
from vm.qemu import VMError


def run(options: argparse.Namespace) -> int:
    if bool(options.tests) == options.all:
        return refuse("name a test, or --all")
    here = Path.cwd()
    if missing := [test for test in options.tests if not found(test, here)]:
        return refuse(f"{here / missing[0].partition('::')[0]}: No such file or directory")
    try:
        tests = options.tests or [str(PROJECT / "tests")]
        cases, failed = describe_all(collect([place for test in tests if (place := found(test, here))]))
        if options.all:
            return report(len(cases) + len(failed), failed | check(cases))
        if failed:
            raise CannotExport("\n".join(f"{test}: {why}" for test, why in failed.items()))
        if len(cases) > 1:
            raise CannotExport(f"{options.tests[0]} means {len(cases)} tests: name one of them, such as {cases[0].id}")
        try:
            write(options.output, cases)
            size = options.output.stat().st_size
        except OSError as error:
            return refuse(f"--output {options.output}: {error.strerror}")
        option = " --disposable" if disposable(cases[0]) else ""
        print(f"{options.output}: {size / 1000:.0f} kB; run it with: sudo python3 {shlex.quote(str(options.output))}{option}")
        for spec in options.kernel:
            print(visited(spec, cases[0], options.output, options))
        return Exit.OK
    except (CannotExport, TooNew, SpecError, FetchError, VMError, ImageError, CacheError) as error:
        return refuse(error)


def visited(spec: str, case: Manifest, file: Path, options: argparse.Namespace) -> str:
    """What the case prints on an empty machine with this kernel."""
    with Cache() as cache:
        kernel = resolve(spec, cache, offline=options.offline, mirror=options.mirror, allow_unverified=options.allow_unverified)
        words = ["--disposable"] if disposable(case) else []
        seen = visit(cache, kernel, file.read_bytes(), words, case.packages, options.mirror, options.offline)
    return f"\n== {kernel.package or spec} {kernel.version or kernel.release}, {seen.suite}\n{seen.transcript.rstrip()}"


def report(total: int, failed: dict[str, str]) -> int:
    for test, why in failed.items():
        print(f"{test}: {why}")
    print(f"{total - len(failed)} of {total} tests can be exported")
    return Exit.REGRESSION if failed else Exit.OK
