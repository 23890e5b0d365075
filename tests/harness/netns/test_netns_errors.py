"""Errors on their way to a socket: injected, queued, reported; probes and their answers; firewalls that refuse."""

import socket
import struct

import pytest

import netns
from fixtures.topologies import LAN, ROUTED
from netns import attempt
from netns.hosts import reject
from netns.hosts.pinned import NO_ICMP_LIMITS
from netns.packets import errqueue, icmp
from netns.packets.probe import answers, probe


@pytest.fixture
def routed():
    with netns.build(ROUTED, capture=True) as network:
        network["router"].pin(NO_ICMP_LIMITS)
        yield network


def test_a_queued_error_has_every_part_of_the_message(routed, family):
    client, server, router = routed.nodes("client", "server", "router")
    with client.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((client.address(family), 0))
        errqueue.receive_errors(sock)
        assert errqueue.pending(sock) is None
        quoted = icmp.udp_quote(client.address(family), sock.getsockname()[1], server.address(family), 7) + b"payload"
        pointer = 4
        parameter_problem = (12, 0, pointer << 24) if family == socket.AF_INET else (4, 0, pointer)
        icmp.send_error(router, client, *parameter_problem[:2], quoted, rest=parameter_problem[2])
        error = errqueue.next_error(sock)

    assert (error.offender, error.destination) == (router.address(family, "client"), (server.address(family), 7))
    assert (error.kind, error.code, attempt.errno_name(error.errno)) == (*parameter_problem[:2], "EPROTO")
    assert (error.info, error.payload) == (pointer, b"payload")


def test_an_empty_queue_is_said(family):
    with netns.build(LAN) as network, network["client"].socket(family, socket.SOCK_DGRAM) as sock:
        with pytest.raises(netns.ExpectationFailed, match="^client: no error in the socket's error queue within 0.1 s"):
            errqueue.next_error(sock, within=0.1)


@pytest.mark.parametrize("way", attempt.WAYS)
def test_an_attempt_that_does_not_end_is_said(routed, family, way):
    client, router = routed.nodes("client", "router")
    nowhere = "203.0.113.9" if family == socket.AF_INET else "2001:db8:ff::9"
    router.run(["ip", "route", "add", "blackhole", nowhere])
    with pytest.raises(netns.ExpectationFailed, match="within 0.1 s"):
        attempt.attempt(client.socket(family), (nowhere, 9), way, within=0.1)


def test_the_names_of_errnos_are_the_kernels():
    assert [attempt.errno_name(number) for number in (0, 95, 111)] == ["", "EOPNOTSUPP", "ECONNREFUSED"]


@pytest.mark.parametrize("kind", ["udp", "tcp", "icmp"])
def test_probes_are_sound(routed, family, kind):
    """Their checksums are right: the destination answers them; and they have the size that was asked for."""
    client, server = routed.nodes("client", "server")
    with client.capture() as packets:
        sent = probe(client, kind, client.address(family), server.address(family), 5, size=200)
        packets.until("an answer to the probe", answers, within=5)

    assert [answer.source for answer in answers(packets)] == [server.address(family)]
    assert len(sent) == 200 - (20 if family == socket.AF_INET else 40)
    assert struct.unpack("!HH", sent[:4]) == (33000, 33434) or kind == "icmp"


def test_a_firewall_that_knows_no_such_answer_is_missing(routed, family, monkeypatch):
    unknown = {family: (reject.Rejection(3, 99, "no-such-answer", "icmp-no-such-answer"),)}
    monkeypatch.setattr(reject, "REJECTIONS", unknown)
    with pytest.raises(netns.MissingFeature, match="does not support these reject rules"):
        with reject.rejecting(routed["router"], family, "udp", "nft", "forward"):
            pass
