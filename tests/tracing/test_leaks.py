"""A probe takes nothing from the kernel for good."""

import pytest

from fixtures.topologies import LAN
from netns import probes

pytestmark = pytest.mark.topology(LAN)
TIMES = 20


@pytest.mark.parametrize("kind", ["p", "r"], ids=("kprobe", "kretprobe"))
def test_packets_under_a_probe_are_given_back(flow, given_back, kind):
    """And the probe itself, with the memory that each call takes (rethook_recycle(), objpool_push())."""
    def use():
        with probes.kprobe("nft_do_chain", kind) as probe:
            flow.send(TIMES)
            assert probe.events() >= TIMES

    given_back(use, TIMES)
