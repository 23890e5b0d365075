"""`./kdrift export`: a test as one file that needs neither kdrift nor pytest.

    ./kdrift export TEST [-o FILE] [--kernel SPEC ...]      TEST as pytest names it; with kernels: run it there, in empty machines
    ./kdrift export --all                                   see that every test can be exported; which cannot, and why
"""
import argparse
import shlex
from pathlib import Path

from cli.refusal import refuse
from common.errors import CacheError, FetchError, SpecError
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


def main(arguments: list[str]) -> int:
    words = argparse.ArgumentParser(prog="kdrift export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("tests", nargs="*", metavar="TEST")
    words.add_argument("--all", action="store_true", help="see that every test can be exported")
    words.add_argument("-o", "--output", metavar="FILE", default="repro.pyz", help="default: repro.pyz")
    words.add_argument("--kernel", metavar="SPEC", action="append", default=[],
                       help="run it on an empty machine with this kernel; may be given several times")
    words.add_argument("--offline", action="store_true", help="use only what the cache holds")
    words.add_argument("--mirror", metavar="URI", help="the Debian archive to use instead of the one that apt is set up for")
    chosen = words.parse_args(arguments)
    if bool(chosen.tests) == chosen.all:
        words.error("name a test, or --all")
    try:
        cases, failed = describe_all(collect(chosen.tests))
        if chosen.all:
            return report(len(cases) + len(failed), failed | check(cases))
        if failed:
            raise CannotExport("\n".join(f"{test}: {why}" for test, why in failed.items()))
        if len(cases) > 1:
            raise CannotExport(f"{chosen.tests[0]} means {len(cases)} tests: name one of them, such as\n  {cases[0].id}")
        write(Path(chosen.output), cases)
        size, option = Path(chosen.output).stat().st_size, " --disposable" if disposable(cases[0]) else ""
        print(f"{chosen.output}: {size / 1000:.0f} kB; run it with: sudo python3 {shlex.quote(str(chosen.output))}{option}")
        for spec in chosen.kernel:
            print(run(spec, cases[0], Path(chosen.output), chosen))
        return 0
    except (CannotExport, TooNew, SpecError, FetchError, VMError, ImageError, CacheError) as error:
        return refuse(error)


def run(spec: str, case: Manifest, file: Path, chosen: argparse.Namespace) -> str:
    """What the case prints on an empty machine with this kernel."""
    with Cache() as cache:
        kernel = resolve(spec, cache, offline=chosen.offline, mirror=chosen.mirror)
        options = ["--disposable"] if disposable(case) else []
        seen = visit(cache, kernel, file.read_bytes(), options, case.packages, chosen.mirror, chosen.offline)
    return f"\n== {kernel.package or spec} {kernel.version or kernel.release}, {seen.suite}\n{seen.transcript.rstrip()}"


def report(total: int, failed: dict[str, str]) -> int:
    for test, why in failed.items():
        print(f"{test}: {why}")
    print(f"{total - len(failed)} of {total} tests can be exported")
    return 1 if failed else 0
