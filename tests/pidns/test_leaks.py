"""A process-id namespace ends with its first process, and leaves nothing."""

from netns import _libc
from netns.actor import Actor

TIMES = 8


def test_a_namespace_and_its_processes_are_given_back(given_back):
    """free_pid(), put_pid_ns(): from the parent's namespace the id is free as well."""
    def use():
        for _ in range(TIMES):
            with Actor(object, _libc.CLONE_NEWPID):
                pass

    given_back(use, TIMES)
