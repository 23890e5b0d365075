"""What can go wrong before a kernel runs, each as one line for the person who asked for it."""


class SpecError(ValueError):
    """A kernel specification that names no kernel: a usage error."""


class FetchError(RuntimeError):
    """A kernel that exists and cannot be had: no answer, damaged package, bad signature, full disk."""


class AbsentError(FetchError):
    """A package that the index lists and the mirror no longer holds."""


class CacheError(FetchError):
    """The cache cannot be written or read."""
