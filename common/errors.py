"""Errors before a kernel runs; each message is one line for the user."""

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


class NoSpaceError(CacheError):
    """The disk is full."""
