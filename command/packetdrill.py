"""packetdrill's scripts as a list of commands, each in the three address forms (run_all.py of google/packetdrill).

A program that is newer than the kernel ends at the first script that reads tcp_info: the kernel's structure is smaller than its own.
"""
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from command.session import Task
from common.errors import SpecError

PROGRAM = "packetdrill"
ENDING = ".pkt"
TIMEOUT = 180.0                             # seconds, run_all.py's
UNFIT = "assertion len >= sizeof(struct _tcp_info) failed"
WHY_UNFIT = "packetdrill is newer than the kernel, whose struct tcp_info is smaller: build it as it was when the kernel was made"
_IPV4 = ("--local_ip=192.168.0.1", "--gateway_ip=192.168.0.1", "--netmask_ip=255.255.0.0", "--remote_ip=192.0.2.1",
         "-D", "TFO_COOKIE=3021b9d889017eeb", "-D", "CODE=host_unreachable")
FORMS = {
    "ipv4": ("--ip_version=ipv4", *_IPV4, "-D", "CMSG_LEVEL_IP=SOL_IP", "-D", "CMSG_TYPE_RECVERR=IP_RECVERR"),
    "ipv6": ("--ip_version=ipv6", "--mtu=1520", "--local_ip=fd3d:0a0b:17d6::1", "--gateway_ip=fd3d:0a0b:17d6:8888::1",
             "--remote_ip=fd3d:fa7b:d17d::1", "-D", "TFO_COOKIE=c1d1e9742a47a9bc", "-D", "CMSG_LEVEL_IP=SOL_IPV6",
             "-D", "CMSG_TYPE_RECVERR=IPV6_RECVERR"),
    "ipv4-mapped-v6": ("--ip_version=ipv4-mapped-ipv6", *_IPV4, "-D", "CMSG_LEVEL_IP=SOL_IPV6", "-D", "CMSG_TYPE_RECVERR=IPV6_RECVERR"),
}


def program_of(tree: Path, named: Path | None) -> Path:
    """The program: the one that the user names, the one that is built in the tree, or that of PATH. Raises SpecError."""
    found = named or next((path for path in (tree / PROGRAM / PROGRAM, tree.parent / PROGRAM / PROGRAM) if path.is_file()), None) \
        or shutil.which(PROGRAM)
    if not found:
        raise SpecError(f"--packetdrill {tree}: no program: build it (./configure && make in gtests/net/packetdrill), or name it by "
                        "--packetdrill-program")
    if not os.path.isfile(found) or not os.access(found, os.X_OK):
        raise SpecError(f"--packetdrill-program {found}: no program that can be run")
    return Path(os.path.abspath(found))


def scripts(tree: Path, wanted: Sequence[str]) -> list[Path]:
    """The scripts below the tree, or those that are named: files, or directories with all below them. Raises SpecError."""
    if not tree.is_dir():
        raise SpecError(f"--packetdrill {tree}: no such directory")
    found = []
    for word in wanted or ["."]:
        place = tree / word
        here = [place] if place.is_file() else sorted(place.rglob(f"*{ENDING}"))
        if not here or not place.resolve().is_relative_to(tree.resolve()):
            raise SpecError(f"{word}: no script of packetdrill in {tree}")
        found += here
    return list(dict.fromkeys(found))


def forms_of(script: Path) -> list[str]:
    """A script whose name ends with v4 or v6 is of that family alone."""
    left_out = "ipv4" if script.stem.endswith("v6") else "ipv6" if script.stem.endswith("v4") else None
    return [form for form in FORMS if not left_out or not form.startswith(left_out)]


def packetdrill_tasks(tree: Path, wanted: Sequence[str], program: Path, archive: Path, timeout: float | None) -> list[Task]:
    """A task for each script in each form. Raises SpecError."""
    return [Task(f"{script.relative_to(tree)} {form}", (str(program), "--send_omit_free", *FORMS[form], script.name),
                 os.path.abspath(script.parent), archive, TIMEOUT if timeout is None else timeout, unfit=(UNFIT, WHY_UNFIT))
            for script in scripts(tree, wanted) for form in forms_of(script)]
