"""The command line of repro.pyz."""

import argparse
import json
import os
import sys
import zipfile

from . import explain


def main():
    manifests = _manifests(sys.path[0])
    words = argparse.ArgumentParser(prog="repro.pyz", description=_about(manifests), formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--disposable", action="store_true", help="the case may change this whole machine, and leave it in a bad state")
    words.add_argument("--setup", metavar="FILE", help="write the topology to FILE as a script of plain commands, and exit; - is stdout")
    words.add_argument("--shell", action="store_true", help="if the case fails, open a shell on its first host, before teardown")
    words.add_argument("--shell-on", metavar="HOST", help="like --shell, but on this host")
    words.add_argument("--check", nargs="+", metavar="FILE", help="check that these files contain all that their cases need, and exit")
    words.add_argument("--case", metavar="ID", help="the case to run, if the file contains several")
    chosen = words.parse_args()
    explain.install()
    if chosen.check:
        return _check(chosen.check)
    manifest = next((each for each in manifests if each["id"] == chosen.case), manifests[0])
    try:
        from . import run  # only now: it imports the suite's sources
        return run.run(manifest, chosen)
    except BrokenPipeError:
        os._exit(2)


def _about(manifests):
    first = manifests[0]
    return "%s\n\n%s\n\nsudo python3 repro.pyz: status 1 is REPRODUCED, 0 is NOT REPRODUCED, 2 is CANNOT RUN." % (
        first["id"], first["promise"])


def _manifests(file):
    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read("cases.json").decode())


def _check(files):
    """Check each file in its own process.  What all share, netns and its libraries, is imported once."""
    from . import case, run
    run.prepare({"virtual_clock": ""}, False)
    import fixtures.audit  # noqa: F401
    statuses = set()
    for file in files:
        child = os.fork()
        if child == 0:
            sys.path[0] = file
            failed = [line for manifest in _manifests(file) for line in _unresolved(case.Case(manifest))]
            sys.stdout.write("".join(line + "\n" for line in failed))
            sys.stdout.flush()
            os._exit(1 if failed else 0)
        statuses.add(os.waitpid(child, 0)[1])
    return 1 if any(statuses) else 0


def _unresolved(case):
    try:
        case.resolve()
    except Exception as error:
        yield json.dumps({"id": case.manifest["id"], "why": "%s: %s" % (type(error).__name__, error)})
