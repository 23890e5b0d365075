"""Packets that a qdisc holds stay charged to their socket: its send buffer fills, and empties."""

import os
import select
import socket

import pytest

from fixtures.topologies import LAN
from netns import eventually, stopwatch
from netns.attempt import errno_name, refused
from netns.hosts.qdisc import tbf
from netns.packets.raw import HelloReceiver, HelloSender, outq, row, tx_queue, writable

pytestmark = pytest.mark.topology(LAN)

# Bytes requested; the kernel doubles them for its overhead (socket(7), SO_SNDBUF).
SNDBUF = 16384
# The most that one packet is charged: data, headers and the kernel's structures. It differs between kernels.
PACKET = 2048
# Seconds between two Hellos at 80 kbit/s.
DEPARTURE = 0.01


@pytest.fixture
def sender(net, family):
    """A sender on the client whose send buffer does not depend on net.core.wmem_default."""
    sender = HelloSender(net["client"], family)
    sender.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SNDBUF)
    assert sender.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * SNDBUF
    return sender


def fill(sender, index, most=1000):
    """Send until the kernel refuses; return the errno's name and the bytes in use when poll(2) first said no."""
    unwritable_at = None
    for _ in range(most):
        try:
            sender.send(index)
        except OSError as error:
            return errno_name(error.errno), unwritable_at
        if unwritable_at is None and not writable(sender.socket):
            unwritable_at = outq(sender.socket)
    pytest.fail(f"send() succeeded {most} times with {outq(sender.socket)} of {2 * SNDBUF} bytes in the send buffer, expected an error")


def test_held_packets_fill_the_send_buffer_up_to_twice_its_size(net, family, sender, measure):
    """Not writable from half of SO_SNDBUF on; ENOBUFS, not EAGAIN, beyond twice SO_SNDBUF (ip_append_data() limits what
    is charged, not what is requested)."""
    client = net["client"]
    interface = client.interfaces["server"]
    with tbf(client, interface.name, "8bit"):
        error, unwritable_at = fill(sender, interface.index)
        charged = outq(sender.socket)

        assert (error, writable(sender.socket)) == ("ENOBUFS", False)
        assert tx_queue(client, sender.socket) == charged
    assert SNDBUF <= measure("rawbuf.unwritable_at", unwritable_at, "B", tolerance=PACKET) < SNDBUF + PACKET
    assert 4 * SNDBUF < measure("rawbuf.enobufs_at", charged, "B", tolerance=PACKET) < 4 * SNDBUF + PACKET


def test_packets_that_the_qdisc_drops_free_the_send_buffer(net, sender):
    """Here by deleting the qdisc: tx_queue is 0, the socket is writable, and a send succeeds."""
    client = net["client"]
    interface = client.interfaces["server"]
    with tbf(client, interface.name, "8bit"):
        fill(sender, interface.index)

    assert (outq(sender.socket), tx_queue(client, sender.socket), writable(sender.socket)) == (0, 0, True)
    sender.send(interface.index)


def test_one_stuck_interface_fails_the_sends_on_all_interfaces(net, family, sender):
    """The send buffer belongs to the socket: ENOBUFS also over loopback. Another socket can send."""
    client = net["client"]
    interface = client.interfaces["server"]
    with tbf(client, interface.name, "8bit"):
        fill(sender, interface.index)

        with refused("ENOBUFS", "sendto() to a full qdisc"):
            sender.socket.sendto(b"hello", (client.address(family), 0))
        other = HelloSender(client, family)
        other.socket.sendto(b"hello", (client.address(family), 0))
    assert outq(other.socket) == 0


def test_blocking_send_does_not_wait_for_send_buffer(net, sender):
    """ENOBUFS at once: only HDRINCL waits in sock_alloc_send_skb()."""
    client = net["client"]
    interface = client.interfaces["server"]
    with tbf(client, interface.name, "8bit"):
        fill(sender, interface.index)
        sender.socket.setblocking(True)

        with stopwatch() as took, refused("ENOBUFS", "send() to a full qdisc"):
            sender.send(interface.index)
    assert took.seconds < 0.5


def test_poll_wakes_when_half_of_the_send_buffer_is_free(net, sender, measure):
    """POLLOUT comes once less than half of SO_SNDBUF is in use (sock_writeable()); at 80 kbit/s the packets have left
    after about 1 s."""
    client = net["client"]
    interface = client.interfaces["server"]
    with tbf(client, interface.name, "80kbit"):
        fill(sender, interface.index)
        poll = select.poll()
        poll.register(sender.socket, select.POLLOUT)
        with stopwatch() as took:
            events = poll.poll(20_000)

        assert events == [(sender.socket.fileno(), select.POLLOUT)]
        assert outq(sender.socket) < SNDBUF
        # How many have to leave depends on what each is charged.
        measure("rawbuf.writable_after", took.seconds, "s", tolerance=10 * DEPARTURE)


def test_close_does_not_discard_packets_that_the_qdisc_holds(net, family, sender):
    """The socket's row in /proc/net/raw is gone at once; all of its packets reach the neighbour later."""
    client, server = net.nodes("client", "server")
    receiver = HelloReceiver(server, family, "client")
    interface = client.interfaces["server"]
    inode = os.fstat(sender.socket.fileno()).st_ino
    with tbf(client, interface.name, "40kbit"):
        sender.send_many(interface.index, 60)
        held = 60 - receiver.arrived()
        assert row(client, inode).tx_queue > 0

        sender.socket.close()

        assert held > 0
        assert row(client, inode) is None
        eventually("datagrams that arrived at the receiver", receiver.arrived, 60, within=20)
