"""`./kdrift sensitivity`: break the kernel in one place at a time, and count how often the tests notice."""
import argparse
import tomllib
from pathlib import Path

from cli.commandline import GUARDS
from cli.refusal import refuse, refuse_error
from common.errors import FetchError, SpecError
from common.project import PROJECT
from common.status import Exit
from common.temporary import GuardedDirectory
from kernels.cache import Cache
from kernels.spec import resolve
from rerun.conversation import Gone
from sensitivity.gdb import GdbError
from sensitivity.machine import MutantBench
from sensitivity.page import write_page
from sensitivity.score import checked, scores
from sensitivity.study import AFTERWARDS, Study, console
from sensitivity.tried import GREEN, SuiteStudy, summary, write_tried
from vm.image import ImageError
from vm.qemu import VMError

# Tests of no family that guards functions. (Those of unbind need a device, and what auditlock locks stays locked.)
OTHERS = ["conntrack", "ipvs", "ping", "routing"]


def run(options: argparse.Namespace) -> int:
    if options.every and not options.tests:
        return refuse("--every: only with --tests")
    if options.functions and options.tests:
        return refuse("--functions: not with --tests")
    return run_tests(options) if options.tests else run_mutants(options)


def run_tests(options: argparse.Namespace) -> int:
    """Which tests stay green whatever is done to their world?"""
    families = sorted(each.name for each in (PROJECT / "tests").iterdir() if each.name != "harness" and any(each.glob("test_*.py")))
    if unknown := set(options.families) - set(families):
        return refuse(f"no family {min(unknown)}: there are {', '.join(families)}")
    try:
        options.report.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return refuse(f"--report {options.report}: {error.strerror}")
    selection = [f"tests/{family}" for family in options.families or families] + (["-k", options.expression] if options.expression else [])
    try:
        with Cache() as cache, GuardedDirectory() as directory:
            kernel = resolve(options.kernel, cache, offline=options.offline, mirror=options.mirror,
                             allow_unverified=options.allow_unverified)
            tried = SuiteStudy(kernel, Path(directory), options, selection).run()
    except (SpecError, FetchError, ImageError, VMError, Gone, OSError) as error:
        return refuse_error(error, options.report)
    write_tried(options.report, kernel, tried)
    for line in summary(tried):
        console.print(line, markup=False, soft_wrap=True)
    return Exit.REGRESSION if any(each.outcome == GREEN for each in tried) else Exit.OK


def run_mutants(options: argparse.Namespace) -> int:
    guards = {family: table["functions"] for family, table in tomllib.loads(GUARDS.read_text()).items()}
    if unknown := set(options.families) - guards.keys():
        return refuse(f"no family {min(unknown)}: there are {', '.join(guards)}")
    wanted = options.functions or [name for family in options.families or guards for name in guards[family]]
    try:
        options.report.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return refuse(f"--report {options.report}: {error.strerror}")
    try:
        with Cache() as cache, GuardedDirectory() as directory:
            kernel = resolve(options.kernel, cache, offline=options.offline, mirror=options.mirror,
                             allow_unverified=options.allow_unverified)
            selection = [f"tests/{family}" for family in [*(options.families or [*guards, *OTHERS]), AFTERWARDS]]
            selection += ["-k", options.expression] if options.expression else []
            study = Study(MutantBench(kernel, Path(directory), options.report.absolute() / "machine", selection), guards, options)
            verdicts = study.run(wanted)
    except (SpecError, FetchError, ImageError, VMError, GdbError, Gone, OSError) as error:
        return refuse_error(error, options.report)
    for line in scores(verdicts):
        console.print(str(line), markup=False, soft_wrap=True)
    console.print(checked(verdicts), markup=False, soft_wrap=True)
    write_page(options.report, kernel, verdicts)
    console.print(f"survivors and the rest: {options.report}/sensitivity.html", markup=False)
    return Exit.OK
