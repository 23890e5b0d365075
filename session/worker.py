"""What a guest runs for pytest-xdist: xdist's own remote module, from its compiled form.

Sending and compiling its source takes most of a second under emulation.
"""
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from execnet import Channel

    from vm.inlet import GatewayIO


class PunctualChannel:
    """A channel to the session that the guest reads at fixed points: all orders before the first test, then nothing until the last
    has ended.  See vm.inlet."""

    def __init__(self, channel: "Channel") -> None:
        self._channel, self._io = channel, cast("GatewayIO", channel.gateway._io)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def send(self, message: tuple[str, Any]) -> None:
        self._channel.send(message)
        if message[0] == "workerfinished":
            self._io.take_all()

    def setcallback(self, callback: Callable[[tuple[str, Any]], object], endmarker: object) -> None:
        """Called just before the tests begin."""
        over = False

        def handle(order: tuple[str, Any]) -> None:
            nonlocal over
            over = order is endmarker or order[0] == "shutdown"
            callback(order)

        self._channel.setcallback(handle, endmarker)
        while not over:
            self._io.take()


if __name__ == "__channelexec__":
    import importlib.util
    import os

    given: "Channel" = globals()["channel"]         # by execnet
    if "KDRIFT_PROJECTS" in os.environ:
        from session.relocated import RelocatedChannel

        adapted: RelocatedChannel | PunctualChannel = RelocatedChannel(given)
    else:
        adapted = PunctualChannel(given)
    code = importlib.util.find_spec("xdist.remote").loader.get_code("xdist.remote")     # type: ignore[union-attr]  # it is a source file
    exec(code, {**globals(), "channel": adapted})
