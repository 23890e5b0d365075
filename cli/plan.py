"""Which kernels and hosts a session has, and who runs them."""
import os
import sys
import tempfile
from pathlib import Path

import pytest

from common.errors import CacheError, FetchError, SpecError, UnwritableError
from hosts.boxes import COMMAND_LINE
from hosts.initramfs import machine_initramfs
from hosts.session import FarSession, HostRun, find_builders, find_hosts, parse_hosts, split_builders, split_hosts
from hosts.ssh import Host, HostError
from hosts.vagrant import RUNNING, Machines, Vagrant
from kernels.cache import Cache
from kernels.spec import resolve
from session.ahead import Ahead
from session.runs import KernelRun, find_kernels, name_columns, no_start
from session.session import KernelSession
from vm.image import ImageError


def find_session(config: pytest.Config) -> KernelSession:
    """The session that the options ask for.  Raises pytest.UsageError."""
    option = config.option
    if option.builders and (option.vagrant is not None or not option.kernels):
        raise pytest.UsageError("--builder: boots the kernels of --kernel, and none is given for it")
    if option.kernels and option.vagrant is None and not option.builders and not option.slots:
        raise pytest.UsageError("--slots 0: boots no kernel on this machine, and no --builder is given")
    if option.builders and (option.console or option.gdb):
        raise pytest.UsageError("--console and --gdb are for machines here, not on a --builder")
    if option.gdb and option.fresh_boot:
        raise pytest.UsageError("--gdb: waits where a saved state is restored, and --fresh restores none")
    if option.ssh_config:
        check_readable("--ssh-config", option.ssh_config)
    names, labels = split_hosts("--ssh", option.hosts)
    hosts = parse_hosts("--ssh", names, option.ssh_config)
    vagrant, not_up = vagrant_hosts(config) if option.vagrant is not None else ([], {})
    kernels = option.kernels if option.vagrant is None else []
    far, slots = split_builders(option.builders)
    builders = find_builders(parse_hosts("--builder", far, option.ssh_config), slots)
    ahead = Ahead(option)
    config.add_cleanup(ahead.close)
    runs: list[KernelRun] = find_kernels(kernels, option, open_cache(config), option.slots > 0, ahead.arrived) if kernels else []
    runs += find_hosts(hosts, labels, option.own_machine, first=len(runs))
    runs += find_hosts(vagrant, [""] * len(vagrant), True, first=len(runs))
    runs += [HostRun(str(number), name, clock="real", error=why) for number, (name, why) in enumerate(not_up.items(), len(runs))]
    name_columns(runs, option.labels)
    return FarSession(config, runs, builders) if len(kernels) < len(runs) or builders else KernelSession(config, runs)


def open_cache(config: pytest.Config) -> Cache:
    """The cache, which keeps what it has returned until the session ends: a machine may wait long for a slot.  Raises pytest.UsageError."""
    try:
        cache = Cache()
    except UnwritableError as error:
        raise pytest.UsageError(str(error)) from None
    except (CacheError, OSError) as error:
        raise no_start(error) from None
    config.add_cleanup(cache.close)
    return cache


def check_readable(option: str, path: str) -> None:
    """Raises pytest.UsageError."""
    try:
        with open(path):
            pass
    except OSError as error:
        raise pytest.UsageError(f"{option} {path}: {error.strerror}") from None


def vagrant_hosts(config: pytest.Config) -> tuple[list[Host], dict[str, str]]:
    """The machines of --vagrant, up, with the kernel of --kernel where one is given; and why others did not come up.

    They are left as they were when the session ends.  Raises pytest.UsageError.
    """
    option = config.option
    if len(option.kernels) > 1:
        raise pytest.UsageError("--vagrant boots its machines with one --kernel at a time")
    try:
        machines = Machines(Vagrant(), option.vagrant, new=bool(option.kernels))
        if option.kernels:
            machines.vagrant = Vagrant(boot_environment(option.kernels[0], config))
        directory = tempfile.TemporaryDirectory(prefix="kdrift-vagrant-")
        config.add_cleanup(directory.cleanup)
        config.add_cleanup(lambda: restore(machines, option.vagrant_destroy or bool(option.kernels)))
    except HostError as error:
        raise pytest.UsageError(f"--vagrant: {error}") from None
    hosts, not_up = [], {}
    for name in machines.names:
        if machines.before[name] != RUNNING:
            say(f"{name}: vagrant up")
        try:
            hosts.append(machines.up(name, Path(directory.name)))
        except HostError as error:
            not_up[name] = str(error)
    return hosts, not_up


def restore(machines: Machines, destroy: bool) -> None:
    try:
        machines.restore(destroy)
    except HostError as error:
        say(f"--vagrant: {error}")


def say(line: str) -> None:
    """Before pytest's terminal is there, and after."""
    print(line, file=sys.stderr, flush=True)


def boot_environment(spec: str, config: pytest.Config) -> dict[str, str]:
    """What the Vagrantfile is told so that its machines boot a kernel; the cache keeps it until the session ends.

    Raises pytest.UsageError, HostError.
    """
    cache = open_cache(config)
    try:
        kernel = resolve(spec, cache, offline=config.option.offline, mirror=config.option.mirror,
                         allow_unverified=config.option.allow_unverified)
        initrd = machine_initramfs(cache, kernel)
    except (SpecError, FetchError, ImageError) as error:
        raise pytest.UsageError(str(error)) from None
    return {"KDRIFT_KERNEL": str(kernel.vmlinuz), "KDRIFT_INITRD": str(initrd),
            "KDRIFT_CMDLINE": os.environ.get("KDRIFT_CMDLINE", COMMAND_LINE)}
