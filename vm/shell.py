"""The user's terminal, connected to a shell in a guest, which stands still while the shell waits for keys."""
import json
import os
import select
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from vm.machine import Machine

TERMINAL = "/dev/tty"
LEAVE = b"\x1d"                             # Ctrl-], as in telnet: leaves a guest that no longer responds


def terminal_missing() -> str | None:
    """Why there is no terminal for a shell; None if there is one."""
    try:
        os.close(os.open(TERMINAL, os.O_RDWR))
    except OSError:
        return "--shell needs a terminal, and there is none"
    return None


def wanted(message: bytes) -> bool:
    """Whether the guest asks for the terminal."""
    return message.startswith(b'{"shell"')


def serve(machine: Machine, owner: int) -> None:
    """Forward keys and output until the shell or the machine ends; fixtures.console is the other end.  `owner` is the session's PID.

    The machine is stopped once the guest reports that it waits and has taken all keys that were sent.  Raises VMError if
    QEMU does not obey.
    """
    control = machine.control.fileno()
    with machine.monitor("holding the clock") as monitor, raw_terminal() as terminal:
        send(machine, terminal, term=os.environ.get("TERM", "dumb"))
        sent, held, rest = 0, False, b""
        while True:
            ready, _, _ = select.select([terminal, control], [], [])
            if terminal in ready:
                keys = os.read(terminal, 1024)
                if held:
                    monitor.cmd("cont")
                    held = False
                if not keys or LEAVE in keys:
                    os.kill(owner, signal.SIGINT)
                    return
                send(machine, terminal, keys=keys.decode("latin-1"))
                sent += 1
            if control in ready:
                data = machine.control.recv(1 << 16)
                *lines, rest = (rest + data).split(b"\n")
                for message in map(json.loads, lines):
                    if "output" in message:
                        show(terminal, message["output"].encode("latin-1"))
                    elif message.get("waits") == sent:
                        monitor.cmd("stop")
                        held = True
                    elif "over" in message:
                        monitor.cmd("cont")
                        return
                if not data:
                    return


def send(machine: Machine, terminal: int, **order: str) -> None:
    columns, rows = os.get_terminal_size(terminal)
    machine.control.sendall(json.dumps({**order, "size": [rows, columns]}).encode() + b"\n")


def show(terminal: int, data: bytes) -> None:
    while data:
        data = data[os.write(terminal, data):]


@contextmanager
def raw_terminal() -> Iterator[int]:
    """The user's terminal in raw mode within the block: every key goes to the guest."""
    terminal = os.open(TERMINAL, os.O_RDWR)
    try:
        before = termios.tcgetattr(terminal)
        tty.setraw(terminal)
        try:
            yield terminal
        finally:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
    finally:
        os.close(terminal)
