"""The RST of a half-open check is lost: the server has a request that nobody completes."""

import re

import pytest

from fixtures.topologies import LAN
from netns import approx_timer, eventually, stopwatch, timer_slack, wheel_granularity
from netns.hosts import firewall
from netns.netlink import diag
from netns.packets import segment
from netns.traffic.closing import fence, states, syn_acks

pytestmark = pytest.mark.topology(LAN)


def repeated(listed: str) -> list[str]:
    """How often `ss -o` says that each SYN-ACK was retransmitted: the last number in `timer:(on,...)` (ss(8))."""
    return re.findall(r"timer:\(on,[^,]+,(\d+)\)", listed)


def test_retransmitted_syn_ack_is_answered_with_rst(service, check, measure):
    """It comes after a second, and the client has no such connection: RST without ACK (RFC 9293, 3.5.2)."""
    with service.server.capture("tcp") as packets:
        with firewall.drop_resets(service.server, service.client.address(service.family)) as lost:
            check.run(service)
            eventually("packets that the firewall dropped", lost.packets, 1, within=5)
        assert states(service.server) == ["SYN_RECV"]
        packets.until("5 packets", lambda seen: len(seen) == 5, within=5)

    assert [packet.flags for packet in packets] == ["S", "SA", "RA", "SA", "R"]
    first, second = syn_acks(packets).exactly(2)
    repeated = measure("halfopen.syn_ack_repeated", second.time - first.time, "s", timer_slack(1))
    assert repeated == approx_timer(1)
    fence(service.client, service.server, service.address[0])
    assert states(service.server) == []
    assert service.server.counter("Tcp.PassiveOpens") == 0


def test_ss_shows_how_often_the_syn_ack_was_retransmitted(service, check):
    """2 after three SYN-ACKs: the path is lossy."""
    with firewall.drop_resets(service.server, service.client.address(service.family)):
        with service.server.capture("tcp") as packets:
            check.run(service)
            packets.until("3 SYN-ACKs", lambda seen: len(syn_acks(seen)) == 3, within=10)
        listed = diag.listing(service.server, "-noH", "state", "syn-recv")

    assert repeated(listed) == ["2"], listed


def test_retransmitted_syn_gets_the_same_syn_ack(service, clock, measure):
    """It counts as retransmitted; the server's own next one comes a second after it, not after the first (tcp_check_req())."""
    client, server = service.client, service.server
    source = (client.address(service.family), 40000)
    with firewall.drop_resets(server, source[0]), server.capture("tcp") as packets:
        segment.send(client, source, service.address, "S", seq=1000)
        clock.sleep(0.5)
        segment.send(client, source, service.address, "S", seq=1000)
        packets.until("2 SYN-ACKs", lambda seen: len(syn_acks(seen)) == 2, within=5)
        listed = diag.listing(server, "-noH", "state", "syn-recv")
        packets.until("3 SYN-ACKs", lambda seen: len(syn_acks(seen)) == 3, within=5)

    answers = syn_acks(packets)
    assert repeated(listed) == ["1"], listed
    assert {(answer.seq, answer.ack) for answer in answers} == {(answers[0].seq, 1001)}
    waited = measure("halfopen.syn_ack_after_a_repeated_syn", answers[2].time - answers[1].time, "s", timer_slack(1))
    assert waited == approx_timer(1)


@pytest.mark.parametrize("retries, timers", [
    (0, (1,)), (1, (1, 2)),
    pytest.param(5, (1, 2, 4, 8, 16, 32), marks=pytest.mark.virtual_clock("waits 63 s")),
])
def test_the_server_gives_up_after_tcp_synack_retries(service, check, clock, measure, retries, timers):
    """Retransmitted after 1, 2, 4 ... s, each time twice as late; when the last timer expires the request is gone."""
    service.server.pin({"net.ipv4.tcp_synack_retries": retries})
    with firewall.drop_resets(service.server, service.client.address(service.family)):
        clock.align(timers[-1])
        with service.server.capture("tcp") as packets, stopwatch() as took:
            check.run(service)
            clock.sleep(sum(timers) - 0.1)
            assert states(service.server) == ["SYN_RECV"]
            # Looking every 20 ms would add more than half of the tolerance of the shortest timer.
            eventually("states of the server's connections", lambda: states(service.server), [], within=timers[-1] * 1.2 + 1,
                       every=min(0.02, wheel_granularity(timers[-1]) / 8))

    assert len(syn_acks(packets)) == 1 + retries
    name = f"halfopen.given_up_after_{retries}_retries"
    assert measure(name, took.seconds, "s", timer_slack(*timers)) == approx_timer(*timers)
    assert service.server.counter("Tcp.PassiveOpens") == 0
