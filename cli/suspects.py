"""`./kdrift suspects OLD NEW [TEST ...]`: the functions whose code changed, and those of them that tests execute."""
import argparse
from collections.abc import Sequence
from pathlib import Path

from cli.refusal import refuse
from cli.run import absent_names, absolute, found
from common.errors import FetchError, SpecError
from common.status import Exit
from common.temporary import GuardedDirectory
from kernels.cache import Cache
from kernels.extract import Kernel
from kernels.grammar import is_fetched
from kernels.modules import build_of
from kernels.spec import resolve
from reproduce.collect import CannotExport, collect
from suspects.compare import CHANGED, GONE, NEW, SCOPE, CannotCompare, Difference, compare_code
from suspects.recorded import Recorded
from suspects.recording import NotRecorded, record_executed
from suspects.told import PASSED, Executed, difference_line, suspect_lines
from vm.qemu import VMError, check_device, qemu


def run(options: argparse.Namespace) -> int:
    try:
        tests = chosen_tests(options.tests)
        if tests:
            qemu()
            for device in options.devices:
                check_device(device)
        with Cache() as cache:
            specs = [absolute(spec) for spec in (options.old, options.new)]
            by_spec = {spec: resolve(spec, cache, offline=options.offline, mirror=options.mirror, allow_unverified=options.allow_unverified)
                       for spec in sorted(specs, key=is_fetched)}
            old, new = (by_spec[spec] for spec in specs)
            if build_of(old) == build_of(new):
                return refuse(f"{options.old} and {options.new} are the same kernel, {new.version or new.release}")
            difference = compare_code(old, new, options.paths or SCOPE)
            print(difference_line(difference, options.paths or SCOPE))
            for line in difference.unread:
                print(f"not compared: {line}")
            if not tests:
                tell(difference)
                return Exit.OK
            with GuardedDirectory() as directory:
                return tell_tests(difference, tests, (old, new), options, Path(directory))
    except (SpecError, CannotExport, VMError) as error:
        return refuse(str(error).partition("\n")[0])
    except CannotCompare as error:
        return refuse(error, Exit.NOTHING_JUDGED)
    except FetchError as error:
        return refuse(str(error).partition("\n")[0], Exit.NOT_BOOTED)
    except KeyboardInterrupt:
        return refuse("interrupted", Exit.INTERRUPTED)


def say(line: str) -> None:
    print(line, flush=True)


def chosen_tests(words: Sequence[str]) -> list[str]:
    """The ids of the tests that the words name.  Raises SpecError, CannotExport."""
    places = []
    for word in words:
        place = found(word, Path.cwd())
        if not place:
            raise SpecError(f"{Path(word.partition('::')[0]).absolute()}: No such file or directory")
        if absent := absent_names(place):
            raise SpecError(f"{word}: the file has no {absent[0]}")
        places.append(place)
    return [test.nodeid for test in collect(places)] if places else []


def tell(difference: Difference) -> None:
    """All functions that differ, by their file."""
    for name in sorted(difference.of(CHANGED, NEW, GONE), key=lambda each: (difference.places[each], each)):
        print(f"  {difference.how[name]:7} {name}, {difference.places[name] or 'file not known'}")


def tell_tests(difference: Difference, tests: Sequence[str], kernels: Sequence[Kernel], options: argparse.Namespace,
               directory: Path) -> Exit:
    """What each test executes of that on the two kernels. One of them may lose its machine, as if the test ends it."""
    lost = 0
    for number, kernel in enumerate(kernels):
        try:
            record_executed(kernel, tests, directory / str(number), options.slots, options.devices, say)
        except NotRecorded as error:
            lost += 1
            print(f"not recorded: {error}")
    old, new = map(Recorded, kernels)
    outcomes = new.outcomes()
    executed = Executed.by(difference, [new.functions(test) for test, outcome in outcomes.items() if outcome in PASSED])
    print(f"{executed.line()} (of {len(outcomes)} recorded on {kernels[1].release})")
    for test in tests:
        on_old, on_new = old.functions(test), new.functions(test)
        suspects = executed.suspects({*on_old, *on_new})
        was, now = (each.outcomes().get(test, "not recorded") for each in (old, new))
        print(f"{test} ({was} -> {now}): {len(suspects)} changed functions")
        notes = {name: f"only on {kernels[name in on_new].release}" for name, _count in suspects if (name in on_new) != (name in on_old)}
        for line in suspect_lines(suspects, difference.places, notes, most=len(suspects)):
            print(f"  {line}")
    return Exit.LOST if lost == len(kernels) else Exit.OK
