"""`./kdrift run --bisect RESULT`: the first kernel on which a command's result is another."""
import argparse
from collections.abc import Callable, Sequence

from bisection.drive import Bisection, EndUnusable
from bisection.question import NoDifference, ask
from bisection.state import StateError, opened
from cli.bisect import RESULT, all_steps, check_ends, direction, known, say
from cli.refusal import refuse
from cli.run import absolute
from command.files import Account
from command.search import CommandMachines
from command.session import Task
from common.errors import SpecError
from common.status import Exit
from kernels.cache import Cache, sha256_of
from kernels.debian import Archive
from kernels.extract import Kernel
from kernels.progress import Reporter
from kernels.spec import resolve
from kernels.versions import Available
from report.results import write_whole


def chosen(tasks: Sequence[Task], word: str) -> tuple[Task, str]:
    """The task that a result is of, and the whole id of the result. Raises SpecError."""
    name, colons, _ = word.partition("::")
    found = [task for task in tasks if not colons or task.name == name]
    if len(found) != 1:
        raise SpecError(f"--bisect {word}: {'no' if not found else 'more than one'} command has this result: name one of them, such as "
                        f"{tasks[0].name}::{word.rpartition('::')[2]}")
    return found[0], word if colons else f"{found[0].name}::{word}"


def resolver(options: argparse.Namespace, progress: Reporter | None = None) -> Callable[[str, Cache], Kernel]:
    """What gives the kernel of a specification as these options want it."""
    def fetched(spec: str, held: Cache) -> Kernel:
        return resolve(spec, held, offline=options.offline, progress=progress, mirror=options.mirror,
                       allow_unverified=options.allow_unverified)
    return fetched


def bisect_command(options: argparse.Namespace, tasks: Sequence[Task], owner: Account, environment: dict[str, str], cache: Cache) -> int:
    """Search between the two kernels of the options, and print the result.

    Returns the exit status. Raises SpecError, FetchError, OSError.
    """
    task, test = chosen(tasks, options.bisect)
    progress = Reporter()
    fetched = resolver(options, progress)
    specs = [absolute(spec) for spec in options.kernels]
    kernels = [fetched(spec, cache) for spec in specs]
    check_ends(*kernels)
    ends = [Available(each.version or each.release, spec) for each, spec in zip(kernels, specs, strict=True)]
    archive = Archive(cache, offline=options.offline, progress=progress, mirror=options.mirror)
    machines = CommandMachines(options, task, test, owner, environment, fetched)
    try:
        return search(options, test, all_steps(ends, None, archive), ends, machines, task)
    except NoDifference as error:
        return refuse(error, Exit.NOTHING_JUDGED)
    except StateError as error:
        return refuse(error)
    except EndUnusable as error:
        return refuse(error, Exit.NOT_BOOTED)
    except KeyboardInterrupt:
        return refuse(f"interrupted; the same command goes on from {options.report}", Exit.INTERRUPTED)
    finally:
        machines.end()


def search(options: argparse.Namespace, test: str, steps: Sequence[Available], ends: Sequence[Available], machines: CommandMachines,
           task: Task, tell: Callable[[str], None] = say) -> int:
    """The exit status. Raises what Bisection.run() raises."""
    asked = {"test": test, "command": list(task.words), "files": sha256_of(task.archive)[:16],
             "good": ends[0].version, "bad": ends[1].version}
    state = opened(options.report, asked)
    tell(f"{test}: {len(steps) - 2} kernels between {steps[0].version} and {steps[-1].version}")
    seeds = max(1, options.confirm)
    found = Bisection(steps, machines, state, lambda old, new: ask(None, None, old, new), options.slots, seeds, tell).run()
    lines = [*direction(ends, state), *found.lines(), *known(test, found, state)]
    write_whole(options.report / RESULT, "\n".join([test, *lines]) + "\n")
    tell("\n".join(lines))
    return Exit.OK if found.certain else Exit.REGRESSION
