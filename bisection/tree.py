"""A kernel tree as a bisection uses it: one worktree beside the user's checkout, which builds one commit after the other."""
import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bisection.machines import Unusable
from common.errors import NoSpaceError

IMAGE = "arch/x86/boot/bzImage"
# The tree's state is as after a clone; what was built before stays, so that make builds only what differs.
CONFIGURE = 'make -s KCONFIG_ALLCONFIG="{config}" allnoconfig'
BUILD = "make -s -j{jobs}"
WITH_CCACHE = ' CC="ccache gcc"'
# A command that ends with all that it has started when its parent ends: the shell is told, and tells its process group.
WITH_ITS_CHILDREN = ("setpriv", "--pdeathsig", "TERM", "sh", "-c", 'trap "trap - TERM; kill 0" TERM; "$@" & wait $!', "sh")


class TreeError(Exception):
    """The tree cannot be bisected; one line says why."""


class Tree:
    """The repository of `source`, of which the worktree is `place`; `build` is a shell command, run there, that makes bzImage.

    The bisection is the worktree's own (git-worktree(1), refs/bisect): the user's checkout, index, branches and bisection stay as they
    are.  It chooses commits (BISECT_HEAD) and checks none out, which is the builds' affair.  close() removes the worktree.
    """

    def __init__(self, source: Path, place: Path, build: str) -> None:
        self.source, self.place, self.build = source, place.absolute(), build
        self.images = self.place.parent / "images"
        self._stopped = False
        self._process: subprocess.Popen[str] | None = None

    def check(self) -> None:
        """Raises TreeError if it is no repository."""
        if not os.path.isdir(self.source) or self._git(self.source, "rev-parse", "--git-dir").returncode:
            raise TreeError(f"{self.source} is no git repository")

    def commit(self, name: str) -> str:
        """The hash of a commit. Raises TreeError."""
        done = self._git(self.source, "rev-parse", "--quiet", "--verify", f"{name}^{{commit}}")
        if done.returncode:
            raise TreeError(f"{self.source}: {done.stderr.strip() or f'no commit or tag {name}'}")
        return done.stdout.strip()

    def has(self, name: str) -> bool:
        """Whether it is the name of a commit."""
        try:
            return bool(self.commit(name))
        except TreeError:
            return False

    def is_ancestor(self, one: str, other: str) -> bool:
        return self._git(self.source, "merge-base", "--is-ancestor", one, other).returncode == 0

    def changed(self) -> bool:
        """Whether the user's checkout has changes that are in no commit."""
        return bool(self._git(self.source, "status", "--porcelain", "--untracked-files=no").stdout.strip())

    def open(self, commit: str) -> None:
        """Make the worktree, or go on with that of a bisection that was broken off, and with what was built there. Raises TreeError,
        NoSpaceError."""
        if self._is_left():
            try:
                return self._take_over(commit)
            except TreeError:
                pass                        # a new one is as good, and takes longer
        self.close()
        self._must(self.source, "worktree", "add", "--quiet", "--detach", str(self.place), commit)

    def _is_left(self) -> bool:
        asked = ("rev-parse", "--path-format=absolute", "--git-common-dir")
        mine, theirs = (self._git(place, *asked).stdout for place in (self.source, self.place))
        return (self.place / ".git").is_file() and mine == theirs

    def _take_over(self, commit: str) -> None:
        for lock in Path(self._must(self.place, "rev-parse", "--absolute-git-dir").strip()).glob("*.lock"):
            lock.unlink()                   # of a killed git
        self._git(self.place, "revert", "--quit")
        self.checkout(commit)
        self._must(self.place, "bisect", "reset", commit)

    def close(self) -> None:
        """Remove the worktree and what git knows of it; `git worktree prune` would forget others too, on a disk that is not there."""
        shutil.rmtree(self.place, ignore_errors=True)
        self._git(self.source, "worktree", "remove", "--force", str(self.place))

    def bisect(self, *words: str) -> str:
        """What git bisect says. Raises TreeError, but not when only skipped commits are left."""
        done = self._git(self.place, "bisect", *words)
        if done.returncode not in (0, 2):
            raise TreeError(f"git bisect {words[0]}: {(done.stderr or done.stdout).strip().partition(chr(10))[0]}")
        return done.stdout

    def chosen(self) -> str:
        """The commit that git bisect wants to be tried."""
        return self._must(self.place, "rev-parse", "BISECT_HEAD").strip()

    def following(self, commit: str) -> list[str]:
        """The commits that git bisect may choose after this one, without those that are skipped."""
        new, old = (self._must(self.place, "for-each-ref", "--format=%(objectname)", f"refs/bisect/{side}").split()
                    for side in ("new", "old-*"))
        older, found = [f"^{each}" for each in old], []
        for words in ((*new, f"^{commit}"), (commit,)):
            said = self._must(self.place, "rev-list", "--bisect-vars", *words, *older)
            found += re.findall(r"bisect_rev='(\w+)'", said)
        return [each for each in found if each not in (*new, commit)]

    def log(self) -> str:
        """For git bisect replay, which is to check commits out."""
        return self.bisect("log").replace(" '--no-checkout'", "")

    def head(self) -> str:
        return self._must(self.place, "rev-parse", "HEAD").strip()

    def subject(self, commit: str) -> str:
        """Hash and subject as changelogs give them: `9d6c2a1b0c3d ("tcp: ...")`."""
        return self._must(self.source, "show", "-s", '--format=%h ("%s")', "--abbrev=12", commit).strip()

    def parent(self, commit: str) -> str:
        """The first parent. Raises TreeError if there is none."""
        return self.commit(f"{commit}^")

    def checkout(self, commit: str) -> None:
        self._must(self.place, "checkout", "--quiet", "--force", "--detach", commit)

    def revert(self, commit: str, top: str) -> str | None:
        """A commit on `top` that takes `commit` back; None where it does not apply."""
        self.checkout(top)
        author = ["-c", "user.name=kdrift", "-c", "user.email=kdrift@localhost", "-c", "commit.gpgsign=false"]
        done = self._git(self.place, *author, "revert", "--no-edit", commit)
        if done.returncode:
            self._git(self.place, "revert", "--abort")
            return None
        return self.head()

    def kept(self, commit: str) -> str | None:
        """The specification of this commit's kernel, if it was built before."""
        image, modules = self._image(commit)
        return (f"{image},modules={modules}" if modules.exists() else str(image)) if image.exists() else None

    def _image(self, commit: str) -> tuple[Path, Path]:
        return self.images / commit / "bzImage", self.images / commit / "modules"

    def built(self, commit: str) -> str:
        """The specification of this commit's kernel, built in the worktree. Raises Unusable, NoSpaceError, TreeError."""
        if kept := self.kept(commit):
            return kept
        image, modules = self._image(commit)
        if self.head() != commit:
            self.checkout(commit)
        with contextlib.suppress(OSError):
            (self.place / IMAGE).unlink()
        status, log = self._run(["sh", "-c", self.build])
        if status or not (self.place / IMAGE).is_file():
            if "No space left" in log:
                raise NoSpaceError(f"no space left for the build in {self.place}")
            raise Unusable(f"does not build: {_reason(log)}")
        image.parent.mkdir(parents=True, exist_ok=True)
        order = self.place / "modules.order"        # empty if everything is built in
        if order.is_file() and order.read_text().strip():
            shutil.rmtree(modules, ignore_errors=True)
            status, log = self._run(["make", "-s", "modules_install", f"INSTALL_MOD_PATH={modules}", "INSTALL_MOD_STRIP=1"])
            if status or not modules.is_dir():
                if "No space left" in log:
                    raise NoSpaceError(f"no space left for modules in {modules}")
                raise Unusable(f"its modules cannot be installed: {_reason(log)}")
        part = image.with_suffix(".part")
        shutil.copy(self.place / IMAGE, part)
        part.replace(image)                 # last: what is there is whole
        return f"{image},modules={modules}" if modules.exists() else str(image)

    def stop(self) -> None:
        """End the build that runs in another thread; it raises Unusable, and so does each other until go_on()."""
        self._stopped = True
        if (process := self._process) and process.poll() is None:
            process.terminate()

    def go_on(self) -> None:
        self._stopped = False

    def _run(self, words: Sequence[str]) -> tuple[int, str]:
        """Status and output of a command in the worktree, which ends with this process."""
        with subprocess.Popen([*WITH_ITS_CHILDREN, *words], cwd=self.place, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True) as process:
            self._process = process
            if self._stopped:
                process.terminate()
            log = process.communicate()[0]
            return process.returncode, log

    def _must(self, place: Path, *words: str) -> str:
        done = self._git(place, *words)
        if done.returncode:
            full = "No space left" in done.stderr
            line = f"git {words[0]}: {done.stderr.strip().rpartition(chr(10))[2]}"
            raise NoSpaceError(line) if full else TreeError(line)
        return done.stdout

    @staticmethod
    def _git(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
        # Hooks of the user's repository are about the user's work.
        line = ["git", "-C", str(place), "-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false", *words]
        return subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                              env={**{name: value for name, value in os.environ.items() if not name.startswith("GIT_")}, "LC_ALL": "C"})


def build_command(config: Path, jobs: int) -> str:
    """Configure over allnoconfig, and make bzImage and modules, if there are any, with all processors."""
    ccache = WITH_CCACHE if shutil.which("ccache") else ""
    return f"{CONFIGURE.format(config=config)}{ccache} && {BUILD.format(jobs=jobs)}{ccache}"


def tag_of(version: str) -> str:
    """The tag of the upstream version of a package: v6.12.90 of 6.12.90-2~bpo12+1, v7.3-rc7 of 7.3~rc7-1~exp1. Raises TreeError."""
    upstream = re.match(r"(\d+(?:\.\d+)*)(?:~rc(\d+))?", version.rpartition(":")[2])
    if not upstream:
        raise TreeError(f"{version} has no upstream version")
    return f"v{upstream[1]}" + (f"-rc{upstream[2]}" if upstream[2] else "")


def _reason(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return next((line for line in lines if " error: " in line or "Error " in line), (lines or ["no output"])[-1])[:200]
