"""One machine that runs a command: vm.launcher, which forwards the guest's frames to standard output.

    python -m command.launcher JOB
"""
import select
import sys
from contextlib import suppress
from pathlib import Path

from command.frames import FrameReader
from vm import launcher, shell
from vm.command import END
from vm.job import Events, Job
from vm.machine import Machine
from vm.patience import Patience
from vm.qemu import VMError
from vm.state import GUEST_SAYS, console_end


def serve(machine: Machine, job: Job, events: Events) -> None:
    """Forward frames until the command or the machine ends, and record how the machine ended if the command did not."""
    machine.order(Path(job.tests).read_bytes(), seed=job.seed, **job.order)
    machine.line.cut = bytes                # a command's frames are no messages of execnet
    patience, frames = Patience(machine.process.pid, job.deadline), FrameReader()
    bell, control = machine.line.bell.fileno(), machine.control.fileno()
    poller = select.poll()
    for descriptor in (bell, control):
        poller.register(descriptor, select.POLLIN)
    lives = True
    while lives:
        for descriptor, _ in poller.poll(launcher.LOOK):
            if descriptor == bell:
                lives = machine.line.check_bell()
            elif not (data := launcher.receive(control)):
                poller.unregister(control)
            elif shell.wanted(data):
                with suppress(VMError):         # this loop sees what became of the machine
                    shell.serve(machine, job.owner)
                patience.renew()
        machine.check_console()
        if data := machine.line.received():
            patience.renew()
            kinds = [kind for kind, _ in frames.feed(data)]
            launcher.write_all(1, data)
            if END in kinds:
                return
        if machine.line.asked:
            patience.renew()
            machine.line.answer()
        if patience.is_over():
            launcher.give_up(machine, job, events)
            return
    machine.wait()
    end = launcher.ending(machine, None)
    if end["end"] == "lost" and (said := [line for line in console_end(machine) if line.startswith(GUEST_SAYS)]):
        end["why"] = said[-1].removeprefix(GUEST_SAYS)
    elif end["end"] == "lost" and not machine.process.returncode:
        end["why"] = "the machine was switched off or restarted before the command had ended"
    events.add(**end)


if __name__ == "__main__":
    launcher.main(sys.argv[1], bootstrap=lambda: None, serve=serve)
