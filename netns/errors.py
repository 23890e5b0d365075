"""Errors of this library. The kernel's own errno stays an OSError."""

# strerror(3) texts of EPERM and EACCES in tool output, and what `ip` says of a keyword that it is too old for.
_REFUSALS = ("Operation not permitted", "Permission denied", "is unknown, try \"ip")


class NetnsError(Exception):
    """Base of this library's errors."""


class IsolationError(NetnsError):
    """The kernel denies this user private namespaces; the message names the setting that forbids them."""


class MissingFeature(NetnsError):
    """The kernel lacks a feature; the message names it."""


class MissingOnHost(MissingFeature):
    """A tool, a permission or a device of the host is missing. It says nothing about the kernel."""


def missing_feature(what: str, error: Exception) -> MissingFeature:
    """The error for a missing feature: MissingOnHost if permission was denied or the tool is too old."""
    refused = isinstance(error, PermissionError) or any(words in str(error) for words in _REFUSALS)
    return (MissingOnHost if refused else MissingFeature)(f"{what}: {error}")


class CommandError(NetnsError):
    """A command exited with a nonzero status; the message holds its standard error."""


class NotRecording(NetnsError):
    """The host does not record packets; the message says how to make it."""


class CaptureLost(NetnsError):
    """The packet ring overflowed, so the absence of a packet proves nothing."""


class WaitError(NetnsError):
    """Base of the errors of failed waits. `dropped` says what the kernel dropped meanwhile, where that is known; it ends
    the message."""

    dropped = ""

    def __str__(self) -> str:
        return "\n".join(filter(None, (super().__str__(), self.dropped)))


class ExpectationFailed(WaitError, AssertionError):
    """A condition did not become true within the given time."""


class SocketTimeout(WaitError, TimeoutError):
    """A socket timed out; the message says whose socket waited for what. It has no errno, like Python's own timeout."""


class WrongCount(WaitError, AssertionError):
    """Too many or too few packets, entries or events; the message names the host and lists them."""
