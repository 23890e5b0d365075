"""Boots kernels that have arrived while others are still fetched."""
import argparse
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from common.errors import CacheError
from common.project import PROJECT
from common.temporary import GuardedDirectory
from kernels.cache import Cache
from kernels.extract import Kernel
from session.runs import knobs
from vm.image import python_command
from vm.job import Job
from vm.payload import libraries_key, pack_libraries

ENDING = 10                                 # seconds that a launcher may take to end


class Ahead:
    """One launcher at a time, without tests: it makes a kernel's boot image and saved states.

    If it fails, so will the session's own launcher, which reports why. Where this one is not done yet, the other waits.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.launcher: subprocess.Popen[bytes] | None = None

    def arrived(self, kernel: Kernel, cache: Cache) -> None:
        """Boot a kernel that has no saved state, unless another is still being booted. Each kernel must have a slot: the session's machine
        waits in it for this one."""
        busy = self.launcher and self.launcher.poll() is None
        if busy or len(self.options.kernels) > self.options.slots or self.options.clock != "virtual" or self.options.fresh_boot:
            return
        if not any(entry.meta.get("kernel") == kernel.key for entry in cache.entries("states")):
            with suppress(OSError, CacheError):
                self.launch(kernel, cache)

    def launch(self, kernel: Kernel, cache: Cache) -> None:
        option = self.options
        if self.launcher is None:
            self.directory = GuardedDirectory()
        at = self.directory.name
        Path(at, "libraries.tar").write_bytes(pack_libraries(cache))
        job = Job(kernel, option.clock, accel="tcg", slots=1, fresh_boot=False, devices=option.devices,
                  python=python_command(), cwd=at, session=at, owner=os.getpid(), events=f"{at}/events", project=str(PROJECT),
                  libraries=libraries_key(), **knobs(option))
        job.write(Path(at, "job"))
        self.launcher = subprocess.Popen([sys.executable, "-m", "vm.launcher", f"{at}/job"], cwd=PROJECT, stdin=subprocess.DEVNULL,
                                         stdout=subprocess.DEVNULL, process_group=0)        # out of reach of Ctrl-C

    def close(self) -> None:
        """End the launcher and its machine."""
        if self.launcher:
            self.launcher.terminate()
            try:
                self.launcher.wait(ENDING)
            except subprocess.TimeoutExpired:
                self.launcher.kill()        # the machine dies with it
                self.launcher.wait()
            self.directory.cleanup()
