"""What rules ask the connection tracker for: timeouts and helpers of their own; and a table that is full. Source: nft(8), CT TIMEOUT and
CT HELPER; nf_conntrack-sysctl.rst, nf_conntrack_max."""

import re
import socket

import pytest

from fixtures.nat import V4, exchange, inbox
from fixtures.topologies import ROUTED
from netns import deliver, tcp_pair
from netns.attempt import attempt
from netns.hosts.sysctl import global_sysctl
from netns.netlink import conntrack
from netns.observe.kmsg import KernelLog

pytestmark = pytest.mark.topology(ROUTED)

PORT = 7000


def l3(family):
    return "ip" if family == V4 else "ip6"


@pytest.mark.virtual_clock("takes 5 s")
def test_rule_gives_a_flow_timeouts_of_its_own(net, family, clock):
    """nft(8), ct timeout: 7 s until it is answered, 9 s from then on, once it has lasted for 2 s; other flows keep those of the sysctls."""
    client, router, server = net.nodes("client", "router", "server")
    router.nft("add table inet own\n"
               f"add ct timeout inet own brief {{ protocol udp; l3proto {l3(family)}; policy = {{ unreplied : 7, replied : 9 }}; }}\n"
               "add chain inet own pre { type filter hook prerouting priority 0; }\n"
               f'add rule inet own pre udp dport {PORT} ct timeout set "brief"')
    theirs = [inbox(server, family, PORT + number) for number in range(2)]
    ours = [inbox(client, family) for _ in range(2)]
    with conntrack.tracking(router) as tracker:
        def lifetimes():
            return [tracker.lifetime((client.address(family), ours[number].getsockname()[1]), (server.address(family), PORT + number),
                                     socket.IPPROTO_UDP) for number in range(2)]

        for number in range(2):
            ours[number].sendto(b"x", (server.address(family), PORT + number))
        alone = lifetimes()
        for _round in range(2):
            for number in range(2):
                theirs[number].sendto(b"y", theirs[number].recvfrom(10)[1])
                ours[number].recv(10)
                ours[number].sendto(b"x", (server.address(family), PORT + number))
            clock.sleep(2.5)
        exchange(ours[0], theirs[0], (server.address(family), PORT))
        exchange(ours[1], theirs[1], (server.address(family), PORT + 1))
        answered = lifetimes()

    assert [6 <= alone[0] <= 7, 29 <= alone[1] <= 30, 8 <= answered[0] <= 9, 119 <= answered[1] <= 120] == [True] * 4


@pytest.mark.parametrize("helper", [True, False], ids=["with a helper", "without"])
def test_data_connection_is_related_only_with_a_helper(net, family, helper):
    """nft(8), ct helper: of FTP's passive mode (RFC 959; RFC 2428 over IPv6) the tracker expects the data connection, and its first packet
    is "related". No helper is assigned by port alone (nf_conntrack_helper=0)."""
    client, router, server = net.nodes("client", "router", "server")
    lines = ["add table inet own", f'add ct helper inet own files {{ type "ftp" protocol tcp; l3proto {l3(family)}; }}',
             "add chain inet own pre { type filter hook prerouting priority 0; }",
             "add chain inet own forward { type filter hook forward priority 0; }", "add rule inet own forward ct state related counter"]
    if helper:
        lines.append('add rule inet own pre tcp dport 21 ct helper set "files"')
    router.nft("\n".join(lines))
    there = server.address(family)
    listeners = []
    for port in (21, 50000):
        listener = server.socket(family)
        listener.bind((there, port))
        listener.listen()
        listeners.append(listener)
    control = client.socket(family)
    control.connect((there, 21))
    session = server.adopt(listeners[0].accept()[0])
    command, reply = ("PASV", f"227 Entering Passive Mode ({there.replace('.', ',')},{50000 // 256},{50000 % 256})") if family == V4 \
        else ("EPSV", "229 Entering Extended Passive Mode (|||50000|)")
    for sender, receiver, line in ((session, control, "220 ready"), (control, session, command), (session, control, reply)):
        sender.send(f"{line}\r\n".encode())
        assert receiver.recv(200)
    data = client.socket(family)
    data.connect((there, 50000))

    assert int(re.search(r"packets (\d+)", router.nft("list chain inet own forward"))[1]) == helper


def test_full_table_refuses_new_connections_and_keeps_the_old(net, family, clock):
    """nf_conntrack_max, here two: the SYN of a third is dropped, its client times out, and the kernel says so in its log; those that are
    assured go on, and once one of them has ended another finds room (fck-nat #144)."""
    client, router, server = net.nodes("client", "router", "server")
    client.pin({"net.ipv4.tcp_syn_retries": 1})
    with conntrack.tracking(router) as tracker, KernelLog() as log:
        listener = server.socket(family)
        listener.bind((server.address(family), PORT))
        listener.listen()
        pairs = [tcp_pair(client, server, family) for _ in range(2)]
        with global_sysctl("net.netfilter.nf_conntrack_max", tracker.count()):
            outcome = attempt(client.socket(family), listener.getsockname()[:2], "nonblocking")
            assert outcome.error == "ETIMEDOUT"
            assert any("table full" in str(record) for record in log.records())
            for conn, peer in pairs:
                deliver(conn, peer, 10)
            pairs[0][0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            pairs[0][0].close()
            clock.sleep(12)
            list(tracker.entries(family))   # expired entries end when they are met

            assert attempt(client.socket(family), listener.getsockname()[:2], "nonblocking").error == ""
