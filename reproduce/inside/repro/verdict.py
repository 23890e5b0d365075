"""The verdict on a case from how it ended: reproduced, not reproduced, or cannot run."""

import errno
import socket
import traceback

import pytest

import netns

from . import explain

REPRODUCED, NOT_REPRODUCED, CANNOT_RUN = 1, 0, 2
WORDS = {REPRODUCED: "REPRODUCED", NOT_REPRODUCED: "NOT REPRODUCED", CANNOT_RUN: "CANNOT RUN"}
# Errors that point to the machine rather than to the promise, unless they were recorded.
_LACKING = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOENT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC,
            errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.ENODEV}
# A socket's timeout: what should have happened did not. Before Python 3.10 it has a separate type.
_TIMEOUTS = (TimeoutError, socket.timeout)
_BROKEN = (AssertionError, pytest.Failed, *_TIMEOUTS)


def kind(error):
    """The error as recorded: its type, and for an OSError the name of its errno."""
    if isinstance(error, _TIMEOUTS) and error.errno is None:
        return "TimeoutError"
    name = type(error).__name__
    return "%s %s" % (name, errno.errorcode.get(error.errno, error.errno)) if isinstance(error, OSError) else name


def place(error):
    """The last line of the case's own module in the traceback: (file, line, text)."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/tests/" in frame.filename.replace("\\", "/")]
    if not frames:
        return None
    return frames[-1].filename.partition("/tests/")[2], frames[-1].lineno, (frames[-1].line or "").strip()


def judge(error, phase, recorded):
    """(exit status, why) for an error that ended the case in this phase; `recorded` is how it ended when the file was made."""
    if isinstance(error, (pytest.Skipped, netns.MissingFeature)):
        return CANNOT_RUN, "%s" % error
    if isinstance(error, netns.CaptureLost):
        return CANNOT_RUN, "%s: run it again on a less busy machine" % error
    if recorded and recorded["kind"] == kind(error):
        return REPRODUCED, ""
    if phase != "call":
        return CANNOT_RUN, "the %s of the case failed: %s: %s" % (phase, type(error).__name__, error)
    if isinstance(error, _BROKEN):
        return REPRODUCED, ""
    if isinstance(error, OSError) and error.errno is not None and error.errno not in _LACKING:
        return REPRODUCED, ""
    return CANNOT_RUN, "the case itself failed: %s: %s" % (type(error).__name__, error)


def lines(error):
    """What failed, where, and what was expected and seen."""
    found = place(error)
    if found:
        yield "failed at tests/%s, line %d:" % found[:2]
        yield "    %s" % found[2]
    if isinstance(error, AssertionError) and explain.seen and not isinstance(error, netns.ExpectationFailed):
        left, sign, right = explain.seen[-1]
        yield "expected: %s %s" % (sign, right)
        yield "seen:     %s" % left
    yield "%s: %s" % (type(error).__name__, str(error) or "the promise does not hold")
    yield from _names(error)


def _names(error):
    """The simple values among the test function's local variables."""
    step, frame = error.__traceback__, None
    while step:
        if "/tests/" in step.tb_frame.f_code.co_filename:
            frame = step.tb_frame
        step = step.tb_next
    for name, value in (frame.f_locals if frame else {}).items():
        if isinstance(value, (int, float, str, bytes, tuple, list, dict)) and len(repr(value)) < 200:
            yield "    %s = %r" % (name, value)
