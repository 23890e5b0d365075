"""A process of its own that does what it is told, one call at a time: for what a kernel ties to a process.

Its calls can be started and waited for separately, so that the caller sees a call that the kernel holds up.
"""

import os
import pickle
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from netns import libc
from netns.errors import NotMet

_LONGEST_MESSAGE = 1 << 16


@dataclass(frozen=True)
class Reply:
    """What a call returned or raised, and the seconds it took in the process itself. Clock: CLOCK_MONOTONIC."""

    value: object
    error: BaseException | None
    seconds: float


class Actor:
    """A forked process that holds `make()`; its methods are called there, arguments and results pickled.

    `unshare` are the CLONE_NEW* flags of the namespaces that the process gets for itself before that. It dies with
    this one. What make() raises comes out of the constructor.
    """

    def __init__(self, make: Callable[[], object], unshare: int = 0) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._child = os.fork()
        if self._child == 0:
            _live(theirs, make, unshare)
        theirs.close()
        self.pid: int = self.finish(within=60).value

    def start(self, method: str, *arguments: object) -> None:
        """Begin a call; finish() ends it."""
        self._channel.send(pickle.dumps((method, arguments)))

    def finish(self, within: float) -> Reply:
        """The outcome of the call that was started. Raises NotMet after `within` seconds, saying what the process
        waits for, and what the call raised."""
        readable, _, _ = select.select([self._channel], [], [], within)
        if not readable:
            raise NotMet(f"process {self.pid} has been in its call for more than {within:g} s: {self.whereabouts()}")
        message = self._channel.recv(_LONGEST_MESSAGE)
        if not message:
            raise NotMet(f"process {self._child} has ended in its call")
        reply = Reply(*pickle.loads(message))
        if reply.error is not None:
            raise reply.error
        return reply

    def call(self, method: str, *arguments: object, within: float = 30) -> object:
        """start() and finish(): what the call returns."""
        return self.timed(method, *arguments, within=within).value

    def timed(self, method: str, *arguments: object, within: float = 30) -> Reply:
        """As call(), with the seconds it took."""
        self.start(method, *arguments)
        return self.finish(within)

    @property
    def state(self) -> str:
        """R, S, D, T or Z: see proc_pid_stat(5)."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def whereabouts(self) -> str:
        """State, and where in the kernel it sleeps, as far as /proc tells this user."""
        texts = []
        for name in ("wchan", "stack"):
            try:
                texts.append(Path(f"/proc/{self.pid}/{name}").read_text().strip())
            except OSError:
                continue
        return f"state {self.state}, {' '.join(texts)}"

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End the process and reap it."""
        for pid in {self.pid, self._child}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        os.waitpid(self._child, 0)
        self._channel.close()

    def __enter__(self) -> "Actor":
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._channel.fileno() >= 0:
            self.kill()


def _live(channel: socket.socket, make: Callable[[], object], unshare: int) -> None:
    """The process's whole life; it never returns into the caller's code."""
    try:
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        if unshare:
            libc.unshare(unshare)
        if unshare & libc.CLONE_NEWPID:
            # Only children get into the new PID namespace.
            pid = os.fork()
            if pid:
                channel.send(pickle.dumps((pid, None, 0.0)))
                channel.close()
                os.waitpid(pid, 0)
                os._exit(0)
            libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        target, error = _attempt(make)
        if not unshare & libc.CLONE_NEWPID:
            channel.send(pickle.dumps((os.getpid(), error, 0.0)))
        while request := channel.recv(_LONGEST_MESSAGE):
            method, arguments = pickle.loads(request)
            began = time.monotonic()
            value, error = _attempt(lambda: getattr(target, method)(*arguments))
            channel.send(pickle.dumps((value, error, time.monotonic() - began)))
    finally:
        os._exit(0)


def _attempt(call: Callable[[], object]) -> tuple[object, BaseException | None]:
    try:
        return call(), None
    except Exception as error:
        return None, error
