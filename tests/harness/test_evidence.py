"""What a failed test in a machine shows of its packets, and of the kernel's log."""

import re

import pytest

from tests.harness.sessions import KERNEL, run

OLDEST = "5.10"                             # says where a packet is dropped, and not why


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    """The failures' texts on each kernel."""
    output = run(tmp_path_factory.mktemp("evidence"), "test_evidence.py", kernels=[OLDEST, KERNEL]).output
    parts = re.split(r"^_{3,} (test_\w+ on [\d.]+) _{3,}$", output, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("kernel, drop", [
    (OLDEST, "server: IPv4, nf_hook_slow < ip_local_deliver"),
    (KERNEL, "server: IPv4, NETFILTER_DROP in nft_do_chain < nft_do_chain_inet < nf_hook_slow < ip_local_deliver"),
])
def test_dropped_packets_are_listed_with_host_reason_and_function(failures, kernel, drop):
    text = failures[f"test_fails_for_a_firewall on {kernel}"]
    assert text.count(drop) >= 2
    assert re.search(r"client to-router +client:\d+ > server:\d+ \[PA\] seq 1 ack 1 len 5", text)


@pytest.mark.parametrize("kernel", [OLDEST, KERNEL])
def test_drops_of_an_earlier_test_are_not_this_ones(failures, kernel):
    assert "dropped packets" not in failures[f"test_fails_after_a_drop on {kernel}"]


@pytest.mark.parametrize("kernel", [OLDEST, KERNEL])
def test_kernels_log_is_that_of_the_test(failures, kernel):
    line = "] a line of the kernel's log"
    assert failures[f"test_fails_with_a_line_in_the_log on {kernel}"].count(line) == 1
    assert line not in failures[f"test_fails_for_a_firewall on {kernel}"]
