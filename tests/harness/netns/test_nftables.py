"""nft in this process says and does what the command does."""

import json
import os

import pytest

from netns import CommandError
from netns.hosts import nftables
from netns.hosts.host import Host

RULES = """
    add table inet a
    add chain inet a input { type filter hook input priority 0; }
    add rule inet a input ip6 saddr 2001:db8::1 meta l4proto tcp counter drop
"""


@pytest.fixture
def host():
    with Host("alone") as host:
        yield host


@pytest.fixture(params=["library", "command"])
def way(request, monkeypatch):
    """By the library, or by the command where that is not to be had."""
    if request.param == "command":
        monkeypatch.setattr(nftables, "library", lambda: None)
    elif nftables.library() is None:
        pytest.skip("needs libnftables")


def test_rules_are_made_listed_and_deleted(host, way):
    assert host.nft(RULES) == ""
    listed = json.loads(host.nft("list table inet a", json=True))["nftables"]
    assert [next(iter(each)) for each in listed] == ["metainfo", "table", "chain", "rule"]
    assert "ip6 saddr 2001:db8::1 meta l4proto tcp counter packets 0 bytes 0 drop" in host.nft("list table inet a")
    host.nft("delete table inet a")
    assert host.nft("list tables") == ""


def test_a_mistake_is_told_in_nfts_words_and_nothing_is_done(host, way):
    with pytest.raises(CommandError, match="^alone: nft -f -: status 1: .*Error: "):
        host.nft(f"{RULES}\nadd rule inet a input nonsense\n")

    assert host.nft("list tables") == ""


def test_a_single_command_is_named_in_its_failure(host, way):
    with pytest.raises(CommandError, match="^alone: nft delete table inet nowhere: status 1: .*Error: "):
        host.nft("delete table inet nowhere")


def test_a_chain_may_have_a_negative_priority(host, way):
    """nft(8) takes no word of it for an option."""
    host.nft("add table inet a")
    host.nft("add chain inet a early { type filter hook prerouting priority -17; }")
    assert "priority -17;" in host.nft("list chain inet a early")


@pytest.mark.parametrize("words", [["-a", "list", "tables"], ["-c", "-f", "-"], ["--json", "list", "tables"]], ids=" ".join)
def test_run_takes_all_options_of_nft(host, words):
    """Host.run() runs nft(8) itself."""
    host.run(["nft", *words], stdin=RULES)
    assert host.nft("list tables") == ""


def test_with_many_descriptors_open_it_is_the_command(host):
    """The library's select(2) would abort the process."""
    opened = [os.dup(0) for _ in range(1100)]
    try:
        assert nftables.library() is None
        host.nft(RULES)
        # As low numbers become free, too few for it.
        for descriptor in opened[:3]:
            os.close(descriptor)
        assert nftables.library() is None
    finally:
        for descriptor in opened[3:]:
            os.close(descriptor)
