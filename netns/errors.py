"""What can go wrong in here, apart from the kernel's own errno (OSError)."""


class NetnsError(Exception):
    """Base of this library's errors."""


class IsolationError(NetnsError):
    """The kernel does not let this user have private namespaces; the message names the setting that forbids it."""


class MissingFeature(NetnsError):
    """The machine lacks a tool or a kernel feature; the message names it."""


class CommandError(NetnsError):
    """A command ended with a status other than 0; the message holds its standard error."""


class CaptureLost(NetnsError):
    """The packet ring overflowed, so nothing can be said about what was not seen."""


class NotMet(NetnsError, AssertionError):
    """Something that should have become true did not, in the time given."""
