"""What every child process of ours is given."""
import ctypes
import signal

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def dies_with_parent(how: int = signal.SIGKILL) -> None:
    """For `preexec_fn`: the child is sent a signal when the process that started it ends, whatever way (prctl(2), PR_SET_PDEATHSIG)."""
    _libc.prctl(PR_SET_PDEATHSIG, how)
