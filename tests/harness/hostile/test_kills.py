"""Sessions that are killed at any moment, meet another, or find a place read-only, or the clock set back (tests.harness.stand_ins)."""
import os
import random
import signal
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from tests.harness.sessions import ROOT, Session, one_line, run
from tests.harness.stand_ins import CASE, RELEASES, SOON

READ_ONLY = ["unshare", "-rm", "sh", "-c",
             'mount --bind "$PROJECT" "$PROJECT" && mount -o remount,bind,ro "$PROJECT" && mount -t tmpfs -o ro tmpfs "$HOME" && '
             'cd "$PROJECT" && exec "$@"', "sh"]
CLOCK_SET_BACK = [f"{ROOT}/.venv/bin/python3", "-c", """
import sys, time
real, began = time.time, time.monotonic()
time.time = lambda: real() - 3600 * (time.monotonic() > began + 1)
sys.path.insert(0, ".")
from cli.__main__ import main
sys.exit(main(sys.argv[1:]))"""]
USAGE = 2


def surroundings():
    """Mounts, and network namespaces that have a name."""
    names = Path("/run/netns")
    return Path("/proc/self/mountinfo").read_text(), sorted(os.listdir(names)) if names.exists() else []


@contextmanager
def seeded(option):
    """The chance of one test; a failure names its seed."""
    seed = option if option is not None else random.SystemRandom().randrange(1 << 32)
    try:
        yield random.Random(seed)
    except AssertionError as failure:
        raise AssertionError(f"with --kill-seed={seed}: {failure}") from failure


def furthest(session):
    """What a killed session was doing, by the last state of a kernel that it had printed."""
    states = ("running", "restoring", "importing", "booting", "image")
    return next((state for state in states if f"  {state}" in session.output), "no machine yet")


def test_killed_session_leaves_nothing_and_works_again(scene, tmp_path, request, inputs):
    """A session that ended before its moment came does not count."""
    kills, before, number, troubles, states = request.config.option.kills, surroundings(), 0, [], Counter()
    with seeded(request.config.option.kill_seed) as chance:
        while states.total() + len(troubles) < kills:
            longest, directory = scene.forget(chance), tmp_path / f"{number}"
            moment, number = chance.uniform(0, longest), number + 1
            assert number < 3 * kills + 9, "most sessions ended before they were killed"
            directory.mkdir()
            try:
                with Session(directory, CASE, *scene.options, **scene.settings(directory)) as killed:
                    time.sleep(moment)
                    killed.process.send_signal(signal.SIGKILL)
                    killed.end(within=SOON)
                state = furthest(killed)
                again = run(directory, CASE, *scene.options, **scene.settings(directory))
                assert scene.result(again) == scene.result(scene.usual), again.output
                assert not (left := scene.half_written()), f"left in the cache: {left}"
                assert not (left := list(again.report.glob("*.part"))), f"left in the report: {left}"
                assert surroundings() == before
                states[state] += killed.status == -signal.SIGKILL
            except AssertionError as trouble:
                troubles.append(f"kill {number} after {moment:.3f} s of {longest:.3f}: {trouble}")
        assert not troubles, f"{len(troubles)} of {kills}\n" + "\n".join(troubles)
    inputs["sessions killed"] = states.total()
    inputs.update({f"of them: {state}": count for state, count in states.items()})


def test_two_sessions_share_a_cache(scene, tmp_path, request, inputs):
    """Both have the result of one alone, and neither package nor saved state is made twice."""
    for number in range(request.config.option.pairs):
        made = scene.forget_all()
        pair = []
        for name in ("one", "two"):
            directory = tmp_path / f"{number}-{name}"
            directory.mkdir()
            pair.append(Session(directory, CASE, *scene.options, **scene.settings(directory)))
        with pair[0] as one, pair[1] as two:
            one.end(SOON), two.end(SOON)
        assert scene.result(one) == scene.result(two) == scene.result(scene.usual), one.output + two.output
        assert sorted(scene.made()) == sorted(set(scene.made()))
        assert len(scene.made()) == made
        assert scene.half_written() == []
    inputs["pairs of sessions over one cache"] = request.config.option.pairs


def test_read_only_checkout_and_home(stand_ins, tmp_path):
    """Nothing is written but the cache, TMPDIR and the report."""
    (tmp_path / "home").mkdir()
    given = {**stand_ins.settings(tmp_path), "PROJECT": str(ROOT), "HOME": str(tmp_path / "home")}
    session = run(tmp_path, CASE, *stand_ins.options, prefix=READ_ONLY, **given)
    assert stand_ins.result(session) == stand_ins.result(stand_ins.usual)


def test_home_that_cannot_be_written_is_one_line(mirror, tmp_path):
    given = {**mirror.environment, "KDRIFT_CACHE": "", "XDG_CACHE_HOME": "", "PROJECT": str(ROOT), "HOME": str(tmp_path)}
    session = run(tmp_path, CASE, prefix=READ_ONLY, kernels=list(RELEASES), command="validate", **given)
    assert session.status == USAGE
    assert one_line(session.output, "cannot write to the cache in ", "Read-only file system", "set KDRIFT_CACHE") == session.output.strip()


def test_clock_that_is_set_back(stand_ins, tmp_path):
    """By an hour, a second after the beginning."""
    late = run(tmp_path, CASE, *stand_ins.options, program=CLOCK_SET_BACK, **stand_ins.settings(tmp_path))
    assert stand_ins.result(late) == stand_ins.result(stand_ins.usual)
    assert late.results["run"]["duration_s"] >= 0
