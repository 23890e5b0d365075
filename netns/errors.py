"""What can go wrong in here, apart from the kernel's own errno (OSError)."""

# What strerror(3) has for EPERM and EACCES, in the words of a tool; and of `ip` for what is too new for it.
_REFUSALS = ("Operation not permitted", "Permission denied", "is unknown, try \"ip")


class NetnsError(Exception):
    """Base of this library's errors."""


class IsolationError(NetnsError):
    """The kernel does not let this user have private namespaces; the message names the setting that forbids it."""


class MissingFeature(NetnsError):
    """The kernel lacks a feature; the message names it."""


class HostLacks(MissingFeature):
    """What is missing is not the kernel's: a tool, a right, a device. It says nothing of the kernel."""


def lacks(what: str, error: Exception) -> MissingFeature:
    """The error that says so of what could not be had: HostLacks where it was forbidden, which is for want of a right."""
    refused = isinstance(error, PermissionError) or any(words in str(error) for words in _REFUSALS)
    return (HostLacks if refused else MissingFeature)(f"{what}: {error}")


class CommandError(NetnsError):
    """A command ended with a status other than 0; the message holds its standard error."""


class CaptureLost(NetnsError):
    """The packet ring overflowed, so nothing can be said about what was not seen."""


class Waited(NetnsError):
    """Base of the errors of waiting in vain. `dropped` is what the kernel dropped meanwhile, for whoever can say so: a line
    that ends the message."""

    dropped = ""

    def __str__(self) -> str:
        return "\n".join(filter(None, (super().__str__(), self.dropped)))


class NotMet(Waited, AssertionError):
    """Something that should have become true did not, in the time given."""


class NothingCame(Waited, TimeoutError):
    """A socket's timeout is over; the message says whose socket waited for what. It has no errno, as Python's own."""


class WrongNumber(Waited, AssertionError):
    """There are more or fewer packets, entries or events than there should be; the message says of which host, and lists them."""
