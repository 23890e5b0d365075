"""`./kdrift sensitivity`: break the kernel in one place at a time, and count how often the tests notice.

The guest's code is changed in memory, one instruction for each mutant, and those tests run that execute the instruction. A mutant is
killed when a test has another outcome, a measurement that moved beyond its tolerance, other packets or counters, or no end, again each
time that it is tried, and never without the mutant; otherwise it survived. What no test executes is not reached.
Exit status: 0; 2 usage; 3 when the machine could not be used; 130 interrupted.
"""
import argparse
import os
import signal
import tempfile
import tomllib
from pathlib import Path

from cli.refusal import refuse
from common.errors import CacheError, FetchError, SpecError
from common.project import PROJECT
from common.status import Exit
from kernels.cache import Cache
from kernels.spec import resolve
from rerun.conversation import Gone
from sensitivity.gdb import GdbError
from sensitivity.machine import MutantBench
from sensitivity.page import write_page
from sensitivity.score import checked, scores
from sensitivity.study import AFTERWARDS, Study, console
from vm.image import ImageError
from vm.qemu import VMError

GUARDS = PROJECT / "sensitivity/guards.toml"
# Tests of no family that guards functions. (Those of unbind need a device, and what auditlock locks stays locked.)
OTHERS = ["conntrack", "ipvs", "ping", "routing"]


def main(arguments: list[str]) -> int:
    guards = {family: table["functions"] for family, table in tomllib.loads(GUARDS.read_text()).items()}
    options = _options(arguments, guards)
    wanted = options.functions or [name for family in options.families or guards for name in guards[family]]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Cache() as cache:
            kernel = resolve(options.kernel, cache, offline=options.offline, mirror=options.mirror)
        options.report.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="kdrift-", ignore_cleanup_errors=True) as directory:
            selection = [f"tests/{family}" for family in [*(options.families or [*guards, *OTHERS]), AFTERWARDS]]
            selection += ["-k", options.expression] if options.expression else []
            study = Study(MutantBench(kernel, Path(directory), options.report.absolute() / "machine", selection), guards, options)
            verdicts = study.run(wanted)
    except SpecError as error:
        return refuse(str(error).partition("\n")[0])
    except (FetchError, CacheError, ImageError, VMError, GdbError, Gone, OSError) as error:
        return refuse(str(error).partition("\n")[0], Exit.LOST)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    for line in scores(verdicts):
        console.print(str(line), markup=False, soft_wrap=True)
    console.print(checked(verdicts), markup=False, soft_wrap=True)
    write_page(options.report, kernel, verdicts)
    console.print(f"survivors and the rest: {options.report}/sensitivity.html", markup=False)
    return 0


def _options(arguments: list[str], guards: dict[str, list[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kdrift sensitivity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", metavar="FAMILY", nargs="*", help=f"of {', '.join(guards)}; all of them without one")
    parser.add_argument("-k", dest="expression", metavar="EXPR", help="only these tests, as pytest chooses them")
    parser.add_argument("--functions", metavar="NAME", nargs="+", help="other functions than those in guards.toml")
    parser.add_argument("--kernel", default="6.12", metavar="SPEC")
    parser.add_argument("--most", type=int, default=400, metavar="N", help="mutants to try, spread evenly (default: 400)")
    parser.add_argument("--slots", type=int, default=os.cpu_count(), metavar="N", help="machines at a time (default: one per core)")
    parser.add_argument("--report", type=Path, default=Path("sensitivity-report"), metavar="DIR",
                        help="where the results go; a run that was broken off goes on from there")
    parser.add_argument("--offline", action="store_true", help="use only what the cache holds")
    parser.add_argument("--mirror", metavar="URI")
    options = parser.parse_args(arguments)
    if unknown := set(options.families) - guards.keys():
        parser.error(f"no family {min(unknown)}: there are {', '.join(guards)}")
    return options
