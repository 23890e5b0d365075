"""What a failed test says of its packets: who sent each, in one order, and which of them the kernel dropped."""

import socket

import pytest

import netns
from fixtures.topologies import LAN, ROUTED
from netns.observe.drops import parse
from netns.observe.flowlog import FlowLog


def reconnect(client, server, conn, peer):
    """A new connection on the ports of one that vanished."""
    ours, theirs = conn.getsockname(), peer.getsockname()
    netns.vanish(conn)
    netns.vanish(peer)
    listener, again = server.socket(conn.family), client.socket(conn.family)
    listener.bind(theirs)
    listener.listen()
    again.bind(ours)
    again.connect(theirs)
    return again


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_two_connections_on_one_pair_of_ports_are_kept_apart(family):
    with netns.build(LAN, capture=True) as network:
        client, server = network.nodes("client", "server")
        conn, peer = netns.tcp_pair(client, server, family)
        conn.sendall(b"hello")
        again = reconnect(client, server, conn, peer)
        again.sendall(b"again")

        ports = f"client:{again.getsockname()[1]} > server:{again.getpeername()[1]}"
        lines = [line for line in FlowLog(network).describe(most=100).splitlines() if " [" in line]

    first = [line for line in lines if "#2" not in line]
    second = [line for line in lines if "#2" in line]
    assert lines == first + second
    for flow, number in ((first, ""), (second, " #2")):
        assert f"{ports}{number} [S] seq 0" in flow[0] and f"{ports}{number} [PA] seq 1 ack 1 len 5" in "\n".join(flow)


def test_a_syn_that_is_repeated_begins_nothing():
    with netns.build(LAN, capture=True) as network:
        client, server = network.nodes("client", "server")
        with netns.firewall.drop(server, client.address(socket.AF_INET)) as dropped:
            conn = client.socket(socket.AF_INET)
            conn.setblocking(False)
            conn.connect_ex((server.address(socket.AF_INET), 9))
            netns.eventually("packets that the firewall dropped", dropped.packets, 2, within=5)
        text = FlowLog(network).describe(most=100)
    assert text.count("[S] seq 0") == 2 and "#2" not in text


def test_each_hop_is_a_line_by_its_sender_in_the_order_of_time():
    with netns.build(ROUTED, capture=True) as network:
        client, server = network.nodes("client", "server")
        conn, _peer = netns.tcp_pair(client, server, socket.AF_INET)
        conn.sendall(b"hello")
        lines = FlowLog(network).describe(most=100).splitlines()

    sent = [line.split()[1:3] for line in lines if "len 5" in line]
    assert sent == [["client", "to-router"], ["router", "to-server"]]
    times = [float(line.split()[0]) for line in lines]
    assert times == sorted(times) and times[0] == 0


def test_what_is_left_out_is_said():
    with netns.build(LAN, capture=True) as network:
        netns.tcp_pair(*network.nodes("client", "server"), socket.AF_INET)
        log = FlowLog(network)
        count = len(log.describe(most=100).splitlines())
        first, *lines = log.describe(most=1).splitlines()
    assert first == f"({count - 1} earlier packets left out)" and len(lines) == 1


def test_last_receiver_is_who_a_dropped_packet_had_reached():
    with netns.build(ROUTED, capture=True) as network:
        client, server = network.nodes("client", "server")
        probe = client.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with server.capture("udp") as packets:
            probe.sendto(b"x", (server.address(socket.AF_INET), 9))
            packets.until("one packet", lambda seen: len(seen) == 1, within=5)
        [arrived] = packets.packets()
        log = FlowLog(network)
        assert log.last_receiver(arrived.time, 0x0800) is server
        assert log.last_receiver(log.began - 1, 0x0800) is None


# As 5.10 and 6.12 print them.
TRACE = """\
# entries-in-buffer/entries-written: 6/6   #P:1
 <idle>-0       [000] ..s.     8.772020: kfree_skb: skbaddr=ffff888003681800 protocol=2048 location=ffffffff81763903
 <idle>-0       [000] ..s.     8.772040: <stack trace>
 => trace_event_raw_event_kfree_skb
 => kfree_skb
 => nf_hook_slow
 => ip_local_deliver
 => __netif_receive_skb_one_core
 => process_backlog
 kworker/0:1-10      [000] ..s1.   367.231776: kfree_skb: skbaddr=00000000003fedb8 rx_sk=0 protocol=34525 \
location=ip6_mc_input+0x1a1/0x2c0 reason: NOT_SPECIFIED
 kworker/0:1-10      [000] ..s1.   367.231794: <stack trace>
 => trace_event_raw_event_kfree_skb
 => sk_skb_reason_drop
 => ip6_mc_input
 => __netif_receive_skb_one_core
 python3-128     [000] ..s1.   368.298855: kfree_skb: skbaddr=00000000003fedb8 rx_sk=0 protocol=2048 \
location=nf_hook_slow+0x23/0xd9 reason: NETFILTER_DROP
 python3-128     [000] ..s1.   368.298876: <stack trace>
 => trace_event_raw_event_kfree_skb
 => sk_skb_reason_drop
 => nf_hook_slow [nf_tables]
 => __ip_local_out
 => __dev_queue_xmit
 => ip_output
"""


def test_a_drop_has_reason_function_and_callers():
    """Up to where the packet came in or went out; what was not addressed to the host is left out."""
    incoming, outgoing = parse(TRACE)
    assert str(incoming) == "IPv4, nf_hook_slow < ip_local_deliver" and incoming.received
    assert str(outgoing) == "IPv4, NETFILTER_DROP in nf_hook_slow < __ip_local_out < __dev_queue_xmit"
    assert (incoming.time, outgoing.time, outgoing.received) == (8.77202, 368.298855, False)
