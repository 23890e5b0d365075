"""The commands that README, CONTRIBUTING and docs show, and what it takes to type them.

Each is run as it stands, in a fresh directory in which ./kdrift is a link to the project's, or stands in NOT_TYPED with the reason.
"""

import os
import re
import subprocess
from pathlib import Path

from common.project import PROJECT

PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
# In a block; a terminal's has a prompt. Its comment is set off by two spaces.
LINE = re.compile(r"^ {4}(?:\$ )?((?:[A-Z0-9_]+=\S+ )*(?:\./kdrift|sudo|\.venv\S*|vagrant|git) .+?)(?: {2,}#.*)?$", re.MULTILINE)
INLINE = re.compile(r"`(\./kdrift[^`]*)`")
# A form to be filled in: FILE, TEST..., [options].
FORM = re.compile(r"\.\.\.| \[[A-Za-z]|\b(?:DIR|FILE|SPEC|TEST|VERSION)\b")

NAMES = "names the command and does not ask to type it"
BUILT = "needs kernels that the reader has built; test_specs.py boots such"
OWN = "needs a file of the reader's; test_any_command.py runs such"
TERMINAL = "needs a terminal; test_shell.py has one"
SELFTEST = "is the selftest, or would run it within itself"
VAGRANT = "needs Vagrant, libvirt and root; ./kdrift selftest --vagrant does the same"
NOT_TYPED = {
    "./kdrift behaviour": NAMES,
    "./kdrift pytest": NAMES,
    "./kdrift sensitivity": NAMES,
    "./kdrift selftest": SELFTEST,
    "./kdrift selftest --docs": SELFTEST,
    "./kdrift selftest --tree": "builds kernels for an hour",
    "./kdrift selftest --mutated": SELFTEST,
    "./kdrift selftest --vagrant": VAGRANT,
    "./kdrift pytest -c tests/harness/pytest.ini tests/harness -k cache": SELFTEST,
    "./kdrift pytest --ssh root@lab1 --ssh joe@lab2:2222": "needs other machines; test_machines.py has an ssh server of its own",
    "./kdrift pytest --kernel 6.12 --vagrant debian12": VAGRANT,
    ".venv/bin/python -m hosts.boxes .": VAGRANT,
    "vagrant box add --name kdrift/debian12 debian12.box": VAGRANT,
    "KDRIFT_BOX_DEBIAN12=kdrift/debian12 ./kdrift pytest --vagrant debian12 -k keepalive": VAGRANT,
    "./kdrift pytest --kernel ~/linux -k pmtu": BUILT,
    "./kdrift validate A/bzImage=before B/bzImage=after": BUILT,
    "git bisect run sh -c 'make -j8 bzImage modules && /path/to/kdrift/kdrift pytest --kernel . --bisect -k test_name'":
        "needs a kernel tree between a good and a bad commit; test_images.py bisects",
    "./kdrift export --all": "takes most of a minute; test_reproduce.py checks every test as it does, and what it prints",
    "./kdrift pytest --kernel 6.12.90-2 -k invalid_ihl --shell": TERMINAL,
    './kdrift pytest -k "advmss and ipv4" --shell': TERMINAL,
    "./kdrift run --kernel 6.1 --kernel 6.12 -- ./my-test.sh": OWN,
    "./kdrift run --kernel ~/linux -- ./my-test.sh": BUILT,
    "./kdrift run --kernel 6.12 -- jq length < results.json": OWN,
    "./kdrift run --kernel 6.12 --timeout 60 -- ./hangs": OWN,
    "./kdrift run --kernel 6.1 --kernel 6.12 --kernel 7.2 --validate --kselftest linux -- net:icmp.sh net:traceroute.sh":
        "needs the kernel's source",
    "./kdrift run --kernel 6.12 --kernel ~/linux --validate --report out -- ./my-test.sh": BUILT,
    "./kdrift run --kernel 6.12 --timeout 600 --user nobody -- ./repro": OWN,
    "./kdrift run --kernel 6.12.90-2 --kernel 6.12.94-1 --bisect second -- ./my-test.sh": OWN,
    "./kdrift run --kernel 6.12 --packetdrill packetdrill/gtests/net -- tcp/close": "needs packetdrill's source",
    "./kdrift shell --kernel 6.12": TERMINAL,
    "./kdrift shell --kernel 6.12 --dir ~/tests": TERMINAL,
    "./kdrift explore --promote c6cf373d --report found": "needs a finding; test_explore.py promotes one",
    "./kdrift explore 6.12 --minutes 30 --report found": "takes half an hour; test_explore.py has its checks, with stand-ins",
    "./kdrift known --record bad/results.json": "writes known_signatures.json of the project; test_known_issues.py records in a copy",
}
# Before the command, in the same directory: what the page has the reader do first.
AFTER = {
    "sudo python3 repro.pyz": [
        './kdrift export "tests/tcp/test_counters.py::test_close_wait_connection_is_counted_in_currestab[ipv4]" -o repro.pyz'],
    "sudo python3 advmss.pyz": [
        './kdrift export "tests/tcp/test_advmss.py::test_advmss_of_a_route_caps_the_mss_that_a_new_connection_announces[ipv6]" '
        '-o advmss.pyz'],
    "./kdrift validate --baseline out/results.json 6.12": ["./kdrift validate 6.1 6.12 --report out"],
    "./kdrift merge old/results.json new/results.json --validate --report verdict": [
        "./kdrift pytest --kernel 6.1 --report old", "./kdrift pytest --kernel 6.12 --report new"],
}
# They run the whole suite, which takes half an hour and more: here one module of it, as if the reader had set PYTEST_ADDOPTS.
WHOLE_SUITE = {
    "./kdrift validate 6.1 6.12 --report out", "./kdrift validate --baseline out/results.json 6.12",
    "./kdrift validate 6.1 6.12 --fail-on regression,gone,drift,unexplained", "./kdrift pytest --kernel 5.10 --kernel 7.2 --report out",
    "./kdrift pytest --kernel 6.1 --report old", "./kdrift pytest --kernel 6.12 --report new",
}
# Of the project, not of a directory of the reader's.
IN_PROJECT = {".venv-selftest/bin/ruff check",
              "./kdrift run --kernel 6.1 --kernel 6.12 --validate --out report-out -- examples/neighbour.sh"}
# It may not clear the reader's cache here.
OWN_CACHE = {"./kdrift kernels --prune"}
# Those without a machine, and quick.
QUICK = {
    ".venv-selftest/bin/ruff check", "./kdrift kernels", "./kdrift kernels --prune", "./kdrift known",
    "./kdrift pytest -k advmss", *AFTER["sudo python3 repro.pyz"], *AFTER["sudo python3 advmss.pyz"], "sudo python3 repro.pyz",
    "sudo python3 advmss.pyz", "./kdrift tables", "./kdrift tables --write",
}
# Which exit statuses README's table has for it, where not only 0.
STATUS = {"./kdrift validate 6.1 6.12 --fail-on regression,gone,drift,unexplained": (0, 1)}


def shown() -> dict[str, str]:
    """Each command, without forms, and the first page that shows it."""
    found: dict[str, str] = {}
    for page in PAGES:
        text = page.read_text()
        for command in [*LINE.findall(text), *INLINE.findall(text)]:
            if not FORM.search(command):
                found.setdefault(" ".join(command.split("\n")), page.name)
    return found


def with_machines() -> list[str]:
    return [command for command in shown() if command not in QUICK and command not in NOT_TYPED]


def type_command(command: str, directory: Path) -> None:
    """Type it and what comes before it, and see that each ends with a status that it may have."""
    link = directory / "kdrift"
    if not link.is_symlink():
        link.symlink_to(PROJECT / "kdrift")
        sudo = directory / "sudo/sudo"      # for a machine that has none, where we are root
        sudo.parent.mkdir()
        sudo.write_text('#!/bin/sh\nexec "$@"\n')
        sudo.chmod(0o755)
    for each in (*AFTER.get(command, ()), command):
        reader = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" and not name.startswith("PYTEST_")}
        environment = {**reader, "PATH": f"{reader['PATH']}:{directory / 'sudo'}",
                       **({"PYTEST_ADDOPTS": "-k advmss"} if each in WHOLE_SUITE else {}),
                       **({"KDRIFT_CACHE": str(directory / "cache")} if each in OWN_CACHE else {})}
        done = subprocess.run(["sh", "-c", each], cwd=PROJECT if each in IN_PROJECT else directory, env=environment,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode in STATUS.get(each, (0,)), f"{each}: status {done.returncode}\n{done.stdout}"
        assert "Traceback (most recent call last)" not in done.stdout, done.stdout


def needs_root(command: str) -> bool:
    return command.startswith("sudo ")
