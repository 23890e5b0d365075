"""Cases that are nothing but a topology, for test_setup_script.py to export."""

import pytest

from fixtures.topologies import DIRECTED, FORK, NARROW


@pytest.mark.topology(DIRECTED)
def test_directed(net):
    pass


@pytest.mark.topology(FORK)
def test_fork(net):
    pass


@pytest.mark.topology(NARROW)
def test_narrow(net):
    pass
