"""Runs a case from beginning to end."""

import os
import signal
import subprocess
import sys
import traceback

_DEADLINE = 600                             # seconds for a case without long timers, as in the suite


def run(manifest, chosen):
    """Returns the exit status."""
    prepare(manifest, chosen.disposable)
    import netns
    from netns.hosts import isolate

    from . import narrate, setup, verdict
    try:
        if manifest["own_network"] or os.geteuid():
            isolate.enter()
    except netns.IsolationError as error:
        return _end(verdict.CANNOT_RUN, str(error))
    recorder = setup.Recorder(manifest)
    recorder.install()
    narrate.install()
    outcome = run_case(manifest, narrate, chosen, recorder)
    if chosen.setup and outcome[0] != verdict.CANNOT_RUN:
        if chosen.setup == "-":
            print("%s%s" % (recorder.script(), setup.END), flush=True)
            return 0
        with open(chosen.setup, "w") as file:
            file.write(recorder.script())
        return 0
    return _end(*outcome)


def prepare(manifest, disposable):
    """Set the environment before anything of the suite is imported that looks at it."""
    from fixtures import machine
    os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    os.environ.pop(machine.CLOCK, None)
    # scapy would keep a cache in the user's home; if it cannot make the directory it does without.
    os.environ.update(XDG_CACHE_HOME="/proc/none", XDG_CONFIG_HOME="/proc/none", XDG_DATA_HOME="/proc/none")
    if disposable:
        os.environ[machine.CLOCK] = "real"     # the machine is ours, with an ordinary clock
    from fixtures import clock
    if disposable or manifest["virtual_clock"]:
        clock.CLOCK = clock.Clock("virtual")


def run_case(manifest, narrate, chosen, recorder):
    """Returns (status, why)."""
    import pytest

    import netns
    from netns.observe import accounting

    from . import verdict
    from .case import Case
    _introduce(manifest, narrate)
    log, phase, network, case = _kernel_log(), "setup", None, Case(manifest)
    try:
        case.resolve()
        _set_deadline(case, manifest)
        narrate.tell("-- setup: the hosts and their configuration")
        case.set_up()
        network = next((value for value in case.values.values() if isinstance(value, netns.Network)), None)
        narrate.topology_built()
        recorder.topology_built()
        if chosen.setup:
            return verdict.NOT_REPRODUCED, ""
        phase = "call"
        narrate.tell("-- the case")
        case.call()
        if network is not None:
            accounting.check(network.hosts.values())
        outcome = (verdict.NOT_REPRODUCED, "")
        narrate.tell("-- the promise holds")
    except KeyboardInterrupt:
        return verdict.CANNOT_RUN, "interrupted"
    except BaseException as error:
        outcome = verdict.judge(error, phase, manifest["recorded"])
        narrate.tell("-- %s" % "\n".join(verdict.lines(error)))
        if outcome[0] == verdict.CANNOT_RUN and not isinstance(error, (netns.MissingFeature, pytest.Skipped)):
            traceback.print_exc(file=sys.stdout)
        if outcome[0] == verdict.CANNOT_RUN and not chosen.disposable and "machine" in outcome[1]:
            outcome = (outcome[0], outcome[1] + " (use --disposable on a machine that the case may change)")
    signal.alarm(0)
    if outcome[0] == verdict.REPRODUCED and (chosen.shell or chosen.shell_on):
        _shell(network, chosen.shell_on, narrate)
    _measured(case)
    _wire(network, narrate)
    return _end_of_case(case, outcome, manifest, narrate, log)


def _introduce(manifest, narrate):
    print("case:    %s" % manifest["id"])
    print("promise: %s" % manifest["promise"].replace("\n", "\n         "))
    print("kernel:  %s, Python %s" % (narrate.kernel(), sys.version.split()[0]))
    recorded = manifest["recorded"]
    if recorded:
        print("failed:  %s: %s" % (recorded["kernel"], recorded["message"].replace("\n", "\n         ")))
    if manifest["virtual_clock"]:
        print("note:    the case lets time pass: %s; on an ordinary machine it takes that long" % manifest["virtual_clock"])
    if recorded and recorded["outcome"] == "crashed":
        print("WARNING: THIS MACHINE MAY PANIC. A PANIC MEANS REPRODUCED.")
    print(flush=True)


def _set_deadline(case, manifest):
    mark = case.node.get_closest_marker("timeout")
    seconds = mark.args[0] if mark else None if manifest["virtual_clock"] else _DEADLINE

    def over(_number, _frame):
        import pytest
        pytest.fail("Timeout (>%.1fs)" % seconds)

    if seconds:
        signal.signal(signal.SIGALRM, over)
        signal.alarm(int(seconds))


def _kernel_log():
    from netns.observe.kmsg import KernelLog
    try:
        return KernelLog()
    except OSError:
        return None


def _shell(network, role, narrate):
    """Run the user's shell in the namespace of a host; sockets and captures stay open meanwhile."""
    if network is None or role and role not in network.hosts:
        narrate.tell("no such host for the shell; the hosts are %s" % (", ".join(network.hosts) if network else "none"))
        return
    host = network[role] if role else next(iter(network.hosts.values()))
    narrate.tell("shell on %s; the case continues when it exits" % host.role)
    with host.entered():
        subprocess.call([os.environ.get("SHELL", "/bin/sh")])


def _measured(case):
    for name, value in getattr(getattr(case, "node", None), "user_properties", []):
        if name == "measurement":
            print("measured: %s = %s %s" % (value["name"], value["value"], value["unit"]))


def _wire(network, narrate, most=60):
    """Print the last `most` packets in order of time."""
    if network is None:
        return
    from netns.observe.flowlog import FlowLog
    try:
        log = FlowLog(network)
        narrate.tell("-- packets: seconds since the first one, sender, packet\n" + log.describe(most))
    except Exception as error:
        narrate.tell("cannot show the packets: %r" % error)


def _end_of_case(case, outcome, manifest, narrate, log):
    """Take everything down. A complaint in the kernel's log is how a crash shows where an oops does not panic."""
    from fixtures.oops import COMPLAINT, PANIC

    from . import verdict
    try:
        case.tear_down()
    except BaseException as error:
        if outcome[0] == verdict.NOT_REPRODUCED:
            outcome = verdict.judge(error, "teardown", manifest["recorded"])
        narrate.tell("-- teardown: %s" % "\n".join(verdict.lines(error)))
    records = [] if log is None else [str(each) for each in log.records()]
    if records:
        narrate.tell("-- kernel log\n" + "\n".join(records))
    recorded = manifest["recorded"]
    if recorded and recorded["outcome"] == "crashed" and any(PANIC.search(line) or COMPLAINT.search(line) for line in records):
        return verdict.REPRODUCED, "an error in the kernel log"
    return outcome


def _end(status, why):
    from . import verdict
    print("\n%s%s" % (verdict.WORDS[status], ": %s" % why if why else ""), flush=True)
    return status
