"""What every child process of ours is given."""
import ctypes

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
# Before the command of a child that is to be killed when the process that started it ends, whatever way: setpriv(1).  Not a `preexec_fn`:
# with one Python runs callbacks around the fork, and what a signal's handler raises in one of those is lost.
DIES_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")


def signal_when_parent_ends(number: int) -> None:
    """The kernel sends this process a signal when the one that started it ends, whatever way (prctl(2), PR_SET_PDEATHSIG)."""
    _libc.prctl(PR_SET_PDEATHSIG, number)
