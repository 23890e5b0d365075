"""What a guest runs for pytest-xdist: xdist's own remote module, from its compiled form.

Sending and compiling its source takes most of a second under emulation.
"""
# ruff: noqa: F821


class PunctualChannel:
    """A channel to the session that the guest reads at fixed points: all orders before the first test, then nothing until the last
    has ended.  See vm.inlet."""

    def __init__(self, channel):
        self._channel, self._io = channel, channel.gateway._io

    def __getattr__(self, name):
        return getattr(self._channel, name)

    def send(self, message):
        self._channel.send(message)
        if message[0] == "workerfinished":
            self._io.take_all()

    def setcallback(self, callback, endmarker):
        """Called just before the tests begin."""
        over = False

        def handle(order):
            nonlocal over
            over = order is endmarker or order[0] == "shutdown"
            callback(order)

        self._channel.setcallback(handle, endmarker)
        while not over:
            self._io.take()


if __name__ == "__channelexec__":
    import importlib.util
    import os

    if "KDRIFT_PROJECTS" in os.environ:
        from session.relocated import RelocatedChannel

        channel = RelocatedChannel(channel)
    else:
        channel = PunctualChannel(channel)
    exec(importlib.util.find_spec("xdist.remote").loader.get_code("xdist.remote"))
