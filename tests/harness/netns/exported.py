"""Cases for test_setup_script.py to export: nothing but a topology, or one with a rule."""

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


@pytest.fixture
def table(net):
    net["router"].nft("add table inet one")
    net["router"].nft("list tables")


@pytest.mark.topology(NARROW)
def test_rule(net, table):
    pass
