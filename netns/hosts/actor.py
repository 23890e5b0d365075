"""A separate process that executes one call at a time, for kernel state that belongs to a process.

A call can be started and awaited separately, so the caller sees a call that the kernel blocks.
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
from netns.errors import ExpectationFailed

_LONGEST_MESSAGE = 1 << 16


@dataclass(frozen=True)
class Reply:
    """What a call returned or raised, and its duration in seconds, measured in the process (CLOCK_MONOTONIC)."""

    value: object
    error: BaseException | None
    seconds: float


class Actor:
    """A forked process that holds the object from `make()` and calls its methods; arguments and results are pickled.

    `unshare` holds the CLONE_NEW* flags of the namespaces that the process first creates for itself. It dies with its
    parent. The constructor raises what make() raises.
    """

    def __init__(self, make: Callable[[], object], unshare: int = 0) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._child = os.fork()
        if self._child == 0:
            _live(theirs, make, unshare)
        theirs.close()
        self.pid: int = self.finish(within=60).value

    def start(self, method: str, *arguments: object) -> None:
        """Start a call; finish() waits for it."""
        self._channel.send(pickle.dumps((method, arguments)))

    def finish(self, within: float) -> Reply:
        """The reply to the started call. Raises what the call raised; ExpectationFailed if the process has ended, or after `within`
        seconds, with the place where it sleeps."""
        readable, _, _ = select.select([self._channel], [], [], within)
        if not readable:
            raise ExpectationFailed(f"process {self.pid}: the call did not return within {within:g} s; {self.whereabouts()}")
        message = self._channel.recv(_LONGEST_MESSAGE)
        if not message:
            raise ExpectationFailed(f"process {self._child} exited during the call")
        reply = Reply(*pickle.loads(message))
        if reply.error is not None:
            raise reply.error
        return reply

    def call(self, method: str, *arguments: object, within: float = 30) -> object:
        """start() and finish(): the call's return value."""
        return self.timed(method, *arguments, within=within).value

    def timed(self, method: str, *arguments: object, within: float = 30) -> Reply:
        """Like call(), with the duration."""
        self.start(method, *arguments)
        return self.finish(within)

    @property
    def state(self) -> str:
        """The process state, R, S, D, T or Z: proc_pid_stat(5)."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def whereabouts(self) -> str:
        """The state and where in the kernel the process sleeps, as far as /proc shows it to this user."""
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
        """Kill the process and reap it."""
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
    """The main loop of the process; never returns."""
    try:
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        if unshare:
            libc.unshare(unshare)
        if unshare & libc.CLONE_NEWPID:
            # Only children enter the new PID namespace.
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
