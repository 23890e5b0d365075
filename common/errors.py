"""Errors before a kernel runs; each message is one line for the user."""


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
