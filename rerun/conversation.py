"""The host's side of the channel to the tests' process in a guest: what it asks, and how long it waits for an answer."""
from collections.abc import Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any

from execnet import Channel, XSpec
from execnet.gateway import Gateway
from execnet.gateway_base import get_execmodel

from common.project import PROJECT
from rerun import guest
from vm.forms import Form, anything, each, escaped, text
from vm.launcher import ending
from vm.line import LineIO
from vm.machine import Machine, plain
from vm.outlet import Misbehaved
from vm.patience import Patience
from vm.qemu import VMError

COLLECTED = 300.0                           # seconds of QEMU's processor time for collecting, or for a test of unknown cost
_LONGEST_IDLE = 15.0                        # seconds without work for QEMU (vm.patience): no answer will ever come


class Gone(Exception):
    """The guest crashed, or fell silent.  `end` is how: crashed or lost; `console` has the last lines of one that crashed."""

    def __init__(self, why: str, end: str = "lost", console: Sequence[str] = ()) -> None:
        super().__init__(why)
        self.end, self.console = end, console


class NeverBegan(Gone):
    """The guest ended before its first test."""


class Conversation:
    """The channel to the tests' process in the guest."""

    channel: Channel
    program: ModuleType = guest             # what runs there

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._gateway = Gateway(LineIO(machine.line, get_execmodel("thread")), XSpec("popen//id=guest"))

    def begin(self, arguments: list[str], modules_stay: bool = False) -> list[str]:
        """Have pytest collect; returns the node ids.  Raises Gone."""
        self.channel = self._gateway.remote_exec(self.program)
        self.channel.send({"arguments": arguments, "directory": str(PROJECT), "modules_stay": modules_stay})
        tests: list[str] = self.answer(COLLECTED, each(text))
        return tests

    def resume(self) -> None:
        """Go on where the saved machine stopped: the first channel of a gateway always has the same number."""
        self.channel = self._gateway.newchannel()

    def ask(self, order: str, argument: object) -> None:
        """Send an order.  Raises Gone."""
        try:
            self.channel.send((order, argument))
        except OSError as error:
            raise Gone(str(error)) from None

    def answer(self, within: float, form: Form = anything) -> Any:
        """The next answer, `within` so many seconds of QEMU's processor time. Raises Gone, also for one of another form."""
        patience = Patience(self.machine.process.pid, within, asleep=_LONGEST_IDLE)
        while True:
            try:
                found = self.channel.receive(timeout=0.5)
                if not form(found):
                    raise Gone("the guest sent an answer to another question")
                return escaped(found)
            except self.channel.TimeoutError:
                self._check_console()
                if self.machine.process.poll() is not None:
                    raise self._ended() from None
                if patience.is_over():
                    raise Gone(f"no response for {within:.0f} s") from None
            except self.channel.RemoteError as error:
                raise Gone(plain((str(error).splitlines() or ["an error without words"])[-1])) from None
            except EOFError:
                raise self._ended() from None

    def _check_console(self) -> None:
        """Raises Gone."""
        try:
            self.machine.check_console()
        except Misbehaved as error:
            raise Gone(str(error)) from None

    def _ended(self) -> Gone:
        """Why no more answers come. Process 1 reports how pytest ended before it ends the machine."""
        done = None
        with suppress(VMError, OSError):
            done = self.machine.event(5)
        self.machine.wait(5)
        end = ending(self.machine, f"status {done['status']}" if done else None)
        return Gone(end["why"], end["end"], end["console"])
