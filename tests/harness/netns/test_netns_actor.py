"""Processes that do what they are told: results, errors, time, and their end."""

import os
import time

import pytest

from netns import ExpectationFailed, eventually
from netns.hosts.actor import Actor
from netns.libc import CLONE_NEWPID, CLONE_NEWUSER


class Target:
    def pid(self):
        return os.getpid()

    def uid_map(self):
        with open("/proc/self/uid_map") as file:
            return file.read()

    def nap(self, seconds):
        time.sleep(seconds)

    def refuse(self):
        raise PermissionError(13, "refused")


def test_call_returns_and_raises_as_in_the_process():
    with Actor(Target) as actor:
        assert actor.call("pid") == actor.pid != os.getpid()
        with pytest.raises(PermissionError, match="refused"):
            actor.call("refuse")


def test_a_call_that_lasts_is_seen_and_timed():
    with Actor(Target) as actor:
        actor.start("nap", 0.2)
        eventually("process state of the actor", lambda: actor.state, "S", within=5)
        with pytest.raises(ExpectationFailed, match=f"process {actor.pid}: the call did not return .* state S"):
            actor.finish(within=0.01)
        assert 0.2 <= actor.finish(within=5).seconds < 2


def test_what_cannot_be_made_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        Actor(lambda: 1 // 0)


@pytest.mark.parametrize("flag", [0, CLONE_NEWPID | CLONE_NEWUSER])
def test_a_killed_process_is_gone_for_good(flag):
    actor = Actor(Target, flag)
    actor.kill()
    assert not os.path.exists(f"/proc/{actor.pid}") or os.stat(f"/proc/{actor.pid}")


def test_namespaces_are_its_own():
    with Actor(Target, CLONE_NEWUSER | CLONE_NEWPID) as actor:
        assert actor.call("pid") == 1 != actor.pid
        assert actor.call("uid_map") == ""


def test_a_process_that_died_is_said():
    with Actor(Target) as actor:
        os.kill(actor.pid, 9)
        with pytest.raises((ExpectationFailed, OSError)):
            actor.call("pid")
