"""One build at a time in a thread of its own, with all processors, while a machine runs the test on what was built last."""
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from bisection.tree import Tree


class Builds:
    """The builds of a tree, whose worktree is theirs alone until end()."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._pool = ThreadPoolExecutor(1)
        self._wanted: dict[str, Future[str]] = {}
        self._now = ""                      # the commit that is built
        self._lock = threading.Lock()

    def built(self, commit: str) -> str:
        """The specification of this commit's kernel; the build of any other is given up. Raises Unusable, NoSpaceError, TreeError."""
        if kept := self._tree.kept(commit):
            return kept
        self._give_up(commit)
        if commit not in self._wanted:
            self._wanted[commit] = self._pool.submit(self._build, commit)
        return self._wanted[commit].result()

    def ahead(self, commits: Sequence[str]) -> None:
        """Build these meanwhile, in this order."""
        for commit in commits:
            if commit not in self._wanted:
                self._wanted[commit] = self._pool.submit(self._build, commit)

    def pause(self) -> None:
        """Give up what is built; the worktree is the caller's until the next build."""
        self._give_up("")
        self._pool.submit(int).result()     # behind the one that was given up

    def end(self) -> None:
        self._give_up("")
        self._pool.shutdown()

    def _give_up(self, wanted: str) -> None:
        """All but one."""
        for commit, future in list(self._wanted.items()):
            if commit != wanted and (future.cancel() or not future.done()):
                del self._wanted[commit]
        with self._lock:
            if self._now not in ("", wanted):
                self._tree.stop()

    def _build(self, commit: str) -> str:
        with self._lock:
            self._now = commit
            self._tree.go_on()
        try:
            return self._tree.built(commit)
        finally:
            with self._lock:
                self._now = ""
