"""The kernel's own selftests as a list of commands (Documentation/dev-tools/kselftest.rst).

An installed tree has kselftest-list.txt, a line COLLECTION:PROGRAM for each test. A source tree is built and installed first.
"""
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from command.files import interpreter
from command.session import Task
from common.errors import SpecError

LIST = "kselftest-list.txt"
SOURCE = Path("tools/testing/selftests")
COLLECTION = "net"                          # what is built of a source tree if no entry names another
RUNNER = "ksft_runner.sh"                   # of a collection whose tests are no programs
TIMEOUT = 45.0                              # seconds of a collection without settings (tools/testing/selftests/kselftest/runner.sh)
# What make says of a target of ours, not of its own rules for whole directories.
ERROR = re.compile(r"(?m)^make.*?: (?:\*\*\* )?\[(?:[^]]*[:/] ?)?(?!all\]|install\])([^/\]: ]+)\] Error|"
                   r"^(?:.*/)?([\w.-]+\.c):\d+:\d+: (?:fatal )?error: (.*)$")


def installed_tree(tree: Path, wanted: Sequence[str], build: Path, say: Callable[[str], None]) -> Path:
    """The tree, or `build` with what could be built of a source tree; `say` gets a line for what could not. Raises SpecError."""
    if os.path.isfile(tree / LIST):
        return tree
    if not os.path.isfile(tree / SOURCE / "Makefile"):
        raise SpecError(f"--kselftest {tree}: neither installed selftests ({LIST}) nor a kernel's source ({SOURCE})")
    collections = sorted({word.partition(":")[0] for word in wanted}) or [COLLECTION]
    jobs = f"-j{os.cpu_count()}"
    target = build / "installed"
    say(f"building the selftests of {', '.join(collections)} in {tree}")
    # -i: what cannot be built must not keep the rest from being installed.
    options = ["-i", jobs, f"O={build}", f"TARGETS={' '.join(collections)}", f"INSTALL_PATH={target}"]
    words = (["make", "-s", jobs, "-C", tree, f"O={build}", "headers"], ["make", "-C", tree / SOURCE, *options, "install"])
    for command in words:
        done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        for line in failures(done.stdout + done.stderr):
            say(line)
        if done.returncode and (command is words[0] or not (target / LIST).is_file()):
            raise SpecError(f"--kselftest {tree}: make failed: {(done.stderr.strip().splitlines() or ['it does not say why'])[-1]}")
    return target


def failures(output: str) -> list[str]:
    """What make could not build, each once, with the compiler's first complaint if there is one."""
    found: dict[str, str] = {}
    for target, source, why in ERROR.findall(output):
        name = Path(target or source).stem
        found[name] = found.get(name) or why
    return [f"not built: {name}" + (f" ({why})" if why else "") for name, why in found.items()]


def entries(tree: Path, wanted: Sequence[str]) -> list[str]:
    """The tests that are wanted, all without a word: COLLECTION:PROGRAM, or COLLECTION alone. Raises SpecError."""
    listed = [line.strip() for line in (tree / LIST).read_text().splitlines() if ":" in line]
    if absent := [word for word in wanted if not any(word in (entry, entry.partition(":")[0]) for entry in listed)]:
        raise SpecError(f"{absent[0]}: not in {tree / LIST}")
    return [entry for entry in listed if not wanted or {entry, entry.partition(":")[0]} & set(wanted)]


def timeout_of(collection: Path) -> float:
    """Seconds, from the collection's settings; 0 for none."""
    try:
        found = re.search(r"(?m)^timeout=(\d+)", (collection / "settings").read_text())
    except OSError:
        found = None
    return float(found[1]) if found else TIMEOUT


def words_of(place: Path, program: str) -> tuple[str, ...]:
    """The command for a test in a collection's directory, by the rules of run_one() in tools/testing/selftests/kselftest/runner.sh."""
    file = place / program
    if os.access(file, os.X_OK) or not file.is_file():
        return (f"./{program}",)
    if os.access(place / RUNNER, os.X_OK):
        return (f"./{RUNNER}", f"./{program}")
    return (*interpreter(str(file)), f"./{program}")


def tasks_of(tree: Path, wanted: Sequence[str], archive: Path, timeout: float | None) -> list[Task]:
    """A task for each test; `timeout` replaces those of the settings. Raises SpecError."""
    found = []
    for entry in entries(tree, wanted):
        collection, _, program = entry.partition(":")
        place = Path(os.path.abspath(tree / collection))
        found.append(Task(entry, words_of(place, program), str(place), archive, timeout_of(place) if timeout is None else timeout))
    return found
