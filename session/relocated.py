"""A pytest-xdist worker whose project directory is not the session's."""
import json
import os
from typing import Any

from execnet import Channel


class RelocatedChannel:
    """The worker's channel.  It adapts the paths in the first message, the command line, to this machine."""

    def __init__(self, channel: Channel):
        self.channel = channel

    def receive(self) -> tuple[dict[str, Any], list[str], dict[str, Any], None]:
        workerinput, arguments, options, _path = self.channel.receive()
        there, here = json.loads(os.environ["KDRIFT_PROJECTS"])
        return workerinput, [argument.replace(there, here) for argument in arguments], options, None

    def __getattr__(self, name: str) -> object:
        return getattr(self.channel, name)
