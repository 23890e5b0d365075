"""The files that a command needs: those that the user names, and what these need of this machine and the boot image lacks.

A library that the image has is never sent: replacing the C library of running processes would end process 1.
"""
import io
import os
import pwd
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import SpecError
from vm.image import DOCUMENTATION, is_elf, with_links
from vm.wide import ETC

# What an argument of the command does not name: these places are the guest's own.
SYSTEM = ("/usr/", "/bin/", "/sbin/", "/lib", "/etc/", "/dev/", "/proc/", "/sys/", "/run/", "/boot/", "/var/")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LIBRARIES = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib")
STDIN = "/run/kdrift-stdin"


@dataclass(frozen=True)
class Account:
    """The user who runs the command; `line` is for /etc/passwd if the image does not know them."""

    name: str
    uid: int
    gid: int
    home: str
    line: str = ""


def account(name: str) -> Account:
    """Of the image, or else of this machine. Raises SpecError if neither knows the user."""
    for line in ETC["passwd"].splitlines():
        known, _, uid, gid, _, home, _ = line.split(":")
        if known == name:
            return Account(name, int(uid), int(gid), home)
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise SpecError(f"--user {name}: no such user, neither in the machine (root, user, nobody) nor here") from None
    return Account(name, found.pw_uid, found.pw_gid, found.pw_dir,
                   f"{name}:x:{found.pw_uid}:{found.pw_gid}:{name}:{found.pw_dir}:/bin/sh\n")


def working_directory(directory: Path | None, here: Path) -> Path:
    """Where the command begins: in the directory that is sent; deeper where the user is in it."""
    if directory is None or here.resolve().is_relative_to(directory.resolve()):
        return here
    return Path(os.path.abspath(directory))


class Luggage:
    """What is sent.  `names` are the image's files, without the leading slash."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = set(names)
        self.image_libraries = {os.path.basename(name) for name in self.names if ".so" in name}
        self.trees: list[str] = []
        self.files: list[str] = []
        self.roots: list[Path] = []         # of unpacked packages

    def add(self, path: Path) -> None:
        """A file with what it needs, or a tree with what its programs need. Raises SpecError."""
        place = os.path.abspath(path)
        if not os.path.exists(place):
            raise SpecError(f"{path}: No such file or directory")
        if not os.access(place, os.R_OK):
            raise SpecError(f"{path}: Permission denied")
        if os.path.isdir(place):
            if os.path.realpath(place) == "/":
                raise SpecError(f"{path}: a whole system is no directory to send")
            self.trees.append(place)
            self._add_needs([os.path.join(top, name) for top, _, names in os.walk(place) for name in names])
        else:
            self.files.append(place)
            self._add_needs([place])

    def add_tool(self, name: str) -> None:
        """A program of this machine that the image lacks. Raises SpecError."""
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{PATH}")
        if found is None:
            raise SpecError(f"--tool {name}: no such program on this machine")
        if not self._in_image(found):
            self.add(Path(found))

    def add_package(self, package: Path, root: Path) -> None:
        """A .deb, which is unpacked below `root`, without its scripts and dependencies, but with its programs' libraries.

        Raises SpecError.
        """
        root.mkdir()
        done = subprocess.run(["dpkg-deb", "-x", package, root], capture_output=True, text=True)
        if done.returncode:
            raise SpecError(f"--package {package}: {(done.stderr.strip().splitlines() or ['not a package'])[0]}")
        self.roots.append(root)
        self.image_libraries |= {path.name for path in root.rglob("*.so*")}
        self._add_needs([str(path) for path in root.rglob("*")])

    def add_command(self, words: Sequence[str], here: Path) -> None:
        """The program that is to run, and its arguments that name files of the user."""
        if "/" not in words[0]:
            there = any(f"{directory}/{words[0]}".lstrip("/") in self.names for directory in PATH.split(":"))
            found = shutil.which(words[0], path=PATH)
            if not there and found:
                self.add(Path(found))
        for number, word in enumerate(words):
            path = here / word
            if (number == 0) == ("/" in word) or number:
                if os.path.isfile(path) and not str(path).startswith(SYSTEM) and os.access(path, os.R_OK):
                    self.add(path)

    def _in_image(self, path: str) -> bool:
        return os.path.realpath(path).lstrip("/") in self.names

    def _add_needs(self, paths: Sequence[str]) -> None:
        """The libraries and the interpreters of these files that the image lacks."""
        binaries = []
        for path in paths:
            if not os.path.isfile(path) or not os.access(path, os.R_OK):
                continue
            if is_elf(path):
                binaries.append(path)
            elif os.access(path, os.X_OK) and (words := interpreter(path)):
                program = shutil.which(words[-1] if os.path.basename(words[0]) == "env" else words[0], path=PATH)
                if program and not self._in_image(program) and program not in self.files:
                    self.files.append(program)
                    self._add_needs([program])
        self.files += needed_libraries(binaries, self.image_libraries)

    def pack(self, target: Path, owner: Account, stdin: bytes | None) -> int:
        """Write a tar archive; returns the bytes that it takes in a machine."""
        def owned(entry: tarfile.TarInfo) -> tarfile.TarInfo:
            entry.uid, entry.gid, entry.uname, entry.gname = owner.uid, owner.gid, "", ""
            return entry

        with tarfile.open(target, "w") as tar:
            for root in self.roots:
                for file in sorted(root.rglob("*")):
                    name = str(file.relative_to(root))
                    if name not in self.names and (file.is_symlink() or file.is_file()) and not f"/{name}".startswith(DOCUMENTATION):
                        tar.add(file, name, filter=rooted)
            for tree in self.trees:
                self._pack_links(tar, tree)
                place = os.path.realpath(tree)
                tar.add(place, place.lstrip("/"), filter=owned)
            for name in with_links(sorted(set(self.files))):
                path = f"/{name}"
                if name not in self.names and not any(Path(path).is_relative_to(tree) for tree in self.trees) \
                        and (os.path.islink(path) or not os.path.isdir(path)):
                    tar.add(path, name, filter=owned)
            if stdin is not None:
                entry = tarfile.TarInfo(STDIN.lstrip("/"))
                entry.size, entry.mode, entry.uid, entry.gid = len(stdin), 0o600, owner.uid, owner.gid
                tar.addfile(entry, io.BytesIO(stdin))
        return target.stat().st_size

    def _pack_links(self, tar: tarfile.TarFile, tree: str) -> None:
        """The symbolic links on the way to a directory."""
        for name in with_links([tree]):
            if os.path.islink(f"/{name}") and name not in self.names:
                tar.add(f"/{name}", name)


def rooted(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member that belongs to root."""
    entry.uid = entry.gid = 0
    return entry


def interpreter(path: str) -> list[str]:
    """The words after #! in a script's first line; none in other files."""
    with open(path, "rb") as file:
        line = file.readline(256)
    return line[2:].decode(errors="replace").split() if line.startswith(b"#!") else []


def needed_libraries(binaries: Sequence[str], present: Iterable[str]) -> list[str]:
    """The files of the shared libraries that the binaries need, directly or not, without those whose names are `present`.

    By NEEDED, RPATH and RUNPATH (readelf(1)), so that no binary is run.
    """
    seen, found, queue = set(present), [], list(binaries)
    while queue:
        listing = subprocess.run(["readelf", "-dW", *queue], capture_output=True, text=True, errors="replace",
                                 env={**os.environ, "LC_ALL": "C"}).stdout
        queue, wanted = [], read_dynamic(listing, queue)
        for name, directories in wanted:
            if name in seen:
                continue
            seen.add(name)
            place = next((path for each in (*directories, *LIBRARIES) if os.path.isfile(path := os.path.join(each, name))), None)
            if place:
                found.append(place)
                queue.append(place)
    return found


def read_dynamic(listing: str, files: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The libraries in readelf's listing, each with the directories that its file names (ld.so(8): $ORIGIN is the file's own)."""
    found = []
    # readelf names the files only if there are several.
    for part in re.split(r"(?m)^File: ", listing) if len(files) > 1 else [f"{files[0]}\n{listing}"]:
        path, _, text = part.partition("\n")
        paths = re.search(r"\((?:RUNPATH|RPATH)\).*\[(.*)\]", text)
        directories = [each.replace("$ORIGIN", os.path.dirname(os.path.abspath(path))) for each in paths[1].split(":")] if paths else []
        found += [(name, directories) for name in re.findall(r"\(NEEDED\).*\[(.*)\]", text)]
    return found
