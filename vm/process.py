"""What all child processes need."""
import ctypes

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
# Command prefix for a child that the kernel kills when its parent ends, for any reason: setpriv(1).  Not a `preexec_fn`: with one,
# Python runs callbacks around the fork and loses what a signal handler raises in them.
DIES_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")


def signal_when_parent_ends(number: int) -> None:
    """The kernel sends this process a signal when its parent ends, for any reason (prctl(2), PR_SET_PDEATHSIG)."""
    _libc.prctl(PR_SET_PDEATHSIG, number)


def as_value(path: object) -> str:
    """The path as a value within an option of QEMU's, where a comma ends a value and two stand for one."""
    return str(path).replace(",", ",,")
