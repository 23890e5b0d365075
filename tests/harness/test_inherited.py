"""A machine with unusual sysctls gives its topologies none of them."""

from tests.harness.sessions import KERNEL, OTHER, run


def test_topology_takes_over_no_sysctl_of_an_unusual_host(tmp_path):
    session = run(tmp_path, "test_inherited.py", kernels=(OTHER, KERNEL))
    assert set(session.outcomes(OTHER).values()) | set(session.outcomes().values()) == {"passed"}, session.output
