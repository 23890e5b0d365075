"""`./kdrift known`: the bugs that known_issues.toml lists, how they show themselves, and whether the file is right."""
import argparse
import subprocess
import sys
from pathlib import Path

from cli.refusal import refuse
from common.errors import CacheError, FetchError
from common.project import PROJECT
from common.status import Exit
from kernels.cache import Cache
from kernels.debian import Archive
from kernels.progress import Reporter
from report.check import OPEN, PROVED, WRONG, Batch, add, batches, judge, read_stored, spans
from report.known import FILE, Issue, KnownIssuesError, load
from report.reading import ResultsError, read
from report.record import rewrite
from report.results import TestResult


def run(options: argparse.Namespace) -> int:
    try:
        if options.record:
            return _record([Path(name) for name in options.names], options.anew)
        if options.check:
            return _check(options)
        if options.names:
            raise KnownIssuesError("names are for --record and --check")
        _list(load())
    except (KnownIssuesError, ResultsError) as error:
        return refuse(error)
    except OSError as error:
        return refuse(f"{f'--report {options.report}' if options.check else error.filename}: {error.strerror}")
    return Exit.OK


def _list(issues: tuple[Issue, ...]) -> None:
    for issue in issues:
        recorded = f"{len(issue.signatures)} signature{'s' * (len(issue.signatures) != 1)}" if issue.signatures else "NO SIGNATURE RECORDED"
        print(f"{issue.id}: {issue.subject}")
        ranges = ", ".join(f"{each.first}..{each.fixed}" for each in issue.affected)
        print(f"    {issue.commit[:12] or issue.commit_unknown or 'no commit'}; {recorded}; {ranges}")


def _record(files: list[Path], anew: bool) -> int:
    if not files:
        raise KnownIssuesError("--record needs the results.json of a run")
    kernels = [kernel for path in files for kernel in read(path)[1]]
    new, gone = rewrite(kernels, load(with_signatures=False), FILE.parent, anew)
    for word, lines in (("new ", new), ("gone", gone)):
        for line in lines:
            print(f"{word} {line}")
    load.cache_clear()
    for issue in load():
        if not issue.signatures:
            print(f"none {issue.id}: no signature recorded")
    return Exit.OK


def _check(options: argparse.Namespace) -> int:
    if options.report is None:
        raise KnownIssuesError("--check needs --report DIR, where results are kept")
    issues = load()
    if strange := set(options.names) - {issue.id for issue in issues}:
        raise KnownIssuesError(f"{min(strange)} is no entry of {FILE.name}")
    options.report.mkdir(parents=True, exist_ok=True)
    packages = _packages(options)
    wanted = [span for issue in issues if issue.id in (options.names or [issue.id]) for span in spans(issue, packages)]
    stored = read_stored(options.report)
    lost = False
    for number, batch in enumerate(todo := batches(wanted, _all_tests(), stored), 1):
        print(f"{number} of {len(todo)}: {batch.version}: {', '.join(batch.issues)}", flush=True)
        if why := _run(batch, options, stored):
            print(f"    {why}", flush=True)
            lost = True
    verdicts = [(span, *judge(span, stored)) for span in wanted]
    for state in (PROVED, OPEN, WRONG):
        for span, found, why in verdicts:
            if found == state:
                print(f"{state:11} {span}: {why}")
    counts = {state: sum(found == state for _span, found, _why in verdicts) for state in (PROVED, OPEN, WRONG)}
    print(f"{len(verdicts)} ranges of {len({span.issue.id for span in wanted})} entries: "
          + ", ".join(f"{count} {state}" for state, count in counts.items()))
    return Exit.REGRESSION if counts[WRONG] else Exit.LOST if lost else Exit.OK


def _packages(options: argparse.Namespace) -> set[str]:
    """Versions of the cloud flavour, which the suite runs: what the archive has, or offline what the cache has."""
    progress = Reporter()
    try:
        with Cache(say=progress.say) as cache:
            archive = Archive(cache, offline=options.offline, progress=progress, mirror=options.mirror)
            if options.offline:
                return {facts["version"] for _key, facts in archive.kernels() if "cloud" in facts["package"]}
            return {each.head.version for each in archive.index().candidates if each.head.flavour == "cloud-amd64" and each.head.signed}
    except (FetchError, CacheError) as error:
        raise KnownIssuesError(str(error)) from None


def _all_tests() -> list[str]:
    """The ids of the suite's tests, from pytest."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-c", "pytest.ini", "--collect-only", "-q", "tests"], cwd=PROJECT,
                          capture_output=True, text=True)
    found = [line for line in done.stdout.splitlines() if "::" in line]
    if done.returncode or not found:
        raise KnownIssuesError(f"pytest cannot collect the tests: {(done.stdout + done.stderr).strip().splitlines()[-1:]}")
    return found


def _run(batch: Batch, options: argparse.Namespace, stored: dict[str, dict[str, TestResult]]) -> str:
    """Run the batch and take in its results; why there are none, or nothing."""
    name = "".join(char if char.isalnum() or char in ".-+" else "_" for char in batch.version)
    number = next(number for number in range(1000) if not (options.report / f"{name}.{number}").exists())
    directory = options.report / f"{name}.{number}"
    words = [sys.executable, "-m", "cli", "pytest", "-q", f"--kernel={batch.version}", f"--slots={options.slots}",
             f"--report={directory.resolve()}"]
    words += ["--offline"] * options.offline + ([f"--mirror={options.mirror}"] if options.mirror else [])
    words += ["--allow-unverified"] * options.allow_unverified
    done = subprocess.run([*words, *batch.tests], cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    try:
        kernels = read(directory / "results.json")[1]
    except ResultsError:
        return f"no results, exit status {done.returncode}: {(done.stdout.strip().splitlines() or ['no output'])[-1]}"
    add(stored, kernels)
    return next((kernel.error.partition("\n")[0] for kernel in kernels if kernel.error), "")
