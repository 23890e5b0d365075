"""Which kernels and hosts a session has, and who runs them."""
import pytest

from kernels.session import KernelSession, find_kernels
from machines.session import FarSession, find_builders, find_hosts, parse_hosts


def find_session(config: pytest.Config) -> KernelSession:
    """The session that the options ask for.  Raises pytest.UsageError."""
    option = config.option
    hosts = parse_hosts("--ssh", option.hosts, option.ssh_config)
    builders = find_builders(parse_hosts("--builder", option.builders, option.ssh_config))
    runs = find_kernels(option.kernels, option, boots_here=not builders) if option.kernels else []
    runs += find_hosts(hosts, option.own_machine, first=len(runs))
    return FarSession(config, runs, builders) if hosts or builders else KernelSession(config, runs)
