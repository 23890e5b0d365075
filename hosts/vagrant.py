"""Machines from the project's Vagrantfile: brought up, found by `vagrant ssh-config`, left as they were."""
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from common.project import PROJECT
from hosts.ssh import Host, HostError

RUNNING, ABSENT = "running", "not_created"
LONGEST = 300                               # characters of a complaint


class Vagrant:
    """Runs vagrant in the project's directory; `environment` is for the Vagrantfile.  Raises HostError if it is not installed."""

    def __init__(self, environment: dict[str, str] | None = None):
        self.environment = {**os.environ, "VAGRANT_CWD": str(PROJECT), **(environment or {})}
        if shutil.which("vagrant") is None:
            raise HostError("vagrant is not installed (Debian packages: vagrant vagrant-libvirt)")

    def run(self, *words: str) -> str:
        """Returns the output.  Raises HostError with vagrant's complaint in one line."""
        done = subprocess.run(["vagrant", *words], env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace")
        if done.returncode:
            complaint = " ".join((done.stderr or done.stdout).split())[:LONGEST]
            raise HostError(f"vagrant {' '.join(words)}: {complaint or f'status {done.returncode}'}")
        return done.stdout

    def states(self) -> dict[str, str]:
        """The state of each machine in the Vagrantfile: running, shutoff, poweroff, not_created ...  Raises HostError."""
        return dict(re.findall(r"(?m)^\d+,([^,]+),state,(\w+)$", self.run("status", "--machine-readable")))


class Machines:
    """The machines of one session, and their states `before` it."""

    def __init__(self, vagrant: Vagrant, names: Sequence[str], new: bool = False):
        """Without names: those that exist.  `new`: none may exist, since libvirt would go on booting them with another kernel.

        Raises HostError.
        """
        self.vagrant = vagrant
        self.before = vagrant.states()
        if unknown := sorted(set(names) - set(self.before)):
            raise HostError(f"no machine {', '.join(unknown)} in the Vagrantfile, which has {', '.join(self.before)}")
        self.names = list(names) or [name for name, state in self.before.items() if state != ABSENT]
        if not self.names:
            raise HostError(f"no machine exists yet: name one or more of {', '.join(self.before)}")
        there = [name for name in self.names if self.before[name] != ABSENT]
        if new and there:
            raise HostError(f"{', '.join(there)} already exists and would keep its kernel: run `vagrant destroy`, or omit --kernel")

    def up(self, name: str, directory: Path) -> Host:
        """Bring up a machine if it is not running; `directory` is for its ssh_config.  Raises HostError."""
        if self.before[name] != RUNNING:
            self.vagrant.run("up", name)
        config = directory / f"ssh-{name}"
        config.write_text(self.vagrant.run("ssh-config", "--host", name, name))
        return Host(name, name, config=str(config))

    def restore(self, destroy: bool) -> None:
        """Leave the machines as they were.  One that did not exist is halted, or destroyed.  Raises HostError."""
        now = self.vagrant.states()
        for name in self.names:
            if destroy and self.before[name] == ABSENT != now[name]:
                self.vagrant.run("destroy", "--force", name)
            elif self.before[name] != RUNNING == now[name]:
                self.vagrant.run("halt", name)
