"""Errors before a kernel runs; each message is one line for the user."""
import errno
import os
import tempfile

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
LONGEST = 600                               # characters of a message that has a stranger's words


def one_line(text: str) -> str:
    """A message with a stranger's words as one line that any terminal and encoding takes: control characters and bytes that are no
    UTF-8 as escapes, a long one cut."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:LONGEST])
    return shown + "..." * (len(text) > LONGEST)


class SpecError(ValueError):
    """The kernel specification names no kernel: a usage error."""


class FetchError(RuntimeError):
    """The kernel exists but cannot be fetched: no answer, damaged package, bad signature, full disk."""


class AbsentError(FetchError):
    """The index lists the package, but the mirror no longer has it."""


class CacheError(FetchError):
    """The cache cannot be written or read."""


class UnwritableError(CacheError):
    """The cache's directory cannot be written: the user chooses another."""


class NoSpaceError(CacheError):
    """The disk is full."""


def trouble_of(error: Exception, where: object = "") -> str:
    """The error in one line; `where` is said of one of the system that names no file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or where or tempfile.gettempdir()}: {error.strerror}"
    return f"{error}".partition("\n")[0] or type(error).__name__


def is_full(error: object) -> bool:
    """Whether an error, or the first line of any program's message, is about a full disk."""
    words = f"{error}".partition("\n")[0].lower()
    return getattr(error, "errno", None) in NO_SPACE or any(each in words for each in ("no space left", os.strerror(errno.EDQUOT).lower()))
