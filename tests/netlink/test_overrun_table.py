"""A netlink receiver that does not read: who is told, what is kept, and how it recovers.

Source: netlink(7): "the kernel can't send a netlink message to user space if the socket buffer is full: the message will be dropped [...].
It is up to the application to detect when this happens (via the ENOBUFS error returned by recvmsg(2)) and resynchronize"; its
NETLINK_NO_ENOBUFS and NETLINK_BROADCAST_ERROR.
"""

import errno
import os
import select
import socket

import pytest

from fixtures.netlink_channels import ADD_MEMBERSHIP, BROADCAST_ERROR, CHANNELS, NO_ENOBUFS, SOL_NETLINK, USERSOCK
from fixtures.table import LeftOut, Measured, OneOf, Table
from fixtures.topologies import LAN
from netns import ExpectationFailed
from netns.attempt import errno_name
from netns.netlink.audit import netlink_row

pytestmark = pytest.mark.topology(LAN)

MOST = 400                                  # messages that no tested buffer has room for
OPTIONS = {"": (), ", NO_ENOBUFS": (NO_ENOBUFS,), ", BROADCAST_ERROR": (BROADCAST_ERROR,),
           ", NO_ENOBUFS and BROADCAST_ERROR": (NO_ENOBUFS, BROADCAST_ERROR)}
BUFFERS = {"the smallest buffer": 1, "a buffer of 8192 bytes": 4096}     # SO_RCVBUF doubles it: socket(7)


class Overrun:
    """A receiver whose buffer is full: `kept` are the numbers of the messages that it has, `refused` those of the others."""

    def __init__(self, host, channel, first, size, options):
        self.host, self.channel, self.next = host, channel, first
        self.socket = host.socket(socket.AF_NETLINK, socket.SOCK_RAW, channel.protocol)
        self.socket.bind((0, 0))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        for option in options:
            self.socket.setsockopt(SOL_NETLINK, option, 1)
        self.socket.setblocking(False)
        channel.attach(self.socket)
        self.before = None                  # /proc/net/netlink after the last message, unless some were read since
        self.first, self.kept, self.refused, self.answers = first, [], [], []

    def row(self):
        with self.host.entered():
            return netlink_row(os.fstat(self.socket.fileno()).st_ino)

    def send(self):
        """Send one more; whether the receiver has it."""
        before = self.row() if self.before is None else self.before
        self.answers.append(self.channel.send(self.next))
        self.before = self.row()
        kept = self.before.rmem > before.rmem
        (self.kept if kept else self.refused).append(self.next)
        self.next += 1
        return kept

    def fill(self, beyond=3):
        """Send until one is refused, and some more."""
        for _ in range(MOST):
            if not self.send():
                break
        else:
            raise ExpectationFailed(f"{MOST} messages found room in a buffer of {self.socket.getsockopt(1, socket.SO_RCVBUF)} bytes")
        for _ in range(beyond - 1):
            self.send()
        return self

    def read(self):
        """The number of the next message, the errno's name, or "empty"."""
        self.before = None
        try:
            return self.channel.number(self.socket.recv(1 << 16))
        except OSError as error:
            return "empty" if error.errno == errno.EAGAIN else errno_name(error.errno)

    def drain(self):
        """What reads return until the buffer is empty."""
        seen = []
        while (got := self.read()) != "empty":
            seen.append(got)
        return seen

    def words(self, got):
        """What one read has returned, for people."""
        if isinstance(got, str):
            return got
        return "the oldest" if got == self.kept[0] else "the next" if got in self.kept else "one that was refused"


def settled(seen, kept):
    """What the reads returned, without the errors."""
    numbers = [each for each in seen if isinstance(each, int)]
    if numbers == kept:
        return "all, in order"
    return "all, out of order" if sorted(numbers) == kept else f"{len(numbers)} of {len(kept)}"


def first_fits(case):
    return ("delivered" if case.send() else "refused") + f", the sender: {case.answers[0]}"


def sender_told(case):
    return ", ".join(sorted(set(case.fill().answers[-3:])))


def drops(case):
    case.fill()
    count = case.row().drops
    return "all that were refused" if count == len(case.refused) else "none" if count == 0 else f"{count} of {len(case.refused)}"


def readiness(case):
    case.fill()
    with select.epoll() as epoll:
        epoll.register(case.socket, select.EPOLLIN | select.EPOLLERR)
        mask = dict(epoll.poll(0)).get(case.socket.fileno(), 0)
    return " ".join(word for word, bit in (("IN", select.EPOLLIN), ("ERR", select.EPOLLERR)) if mask & bit) or "nothing"


def error_option(case):
    case.fill()
    return " then ".join(errno_name(case.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)) or "none" for _ in range(2))


def first_reads(case):
    case.fill()
    return " then ".join(case.words(case.read()) for _ in range(2))


def kept_messages(case):
    case.fill()
    return settled(case.drain(), case.kept)


def errors_of_one(case):
    case.fill(beyond=20)
    return str(case.drain().count("ENOBUFS"))


def errors_of_two(case):
    errors = case.fill().drain().count("ENOBUFS")
    case.kept = []
    return str(errors + case.fill().drain().count("ENOBUFS"))


def memory(case):
    full = case.fill().row().rmem
    case.drain()
    return f"{'some' if full else 'none'}, then {case.row().rmem}"


def afterwards(case):
    case.fill().drain()
    case.kept = []
    return ("delivered" if case.send() and case.read() == case.kept[0] else "lost") + f", the sender: {case.answers[-1]}"


def half_read(case):
    case.fill()
    while case.row().rmem > case.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 4 and case.read() != "empty":
        continue
    return "delivered" if case.send() else "refused"


def error_read(case):
    """The error is read, and no message."""
    case.fill()
    case.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return "delivered" if case.send() else "refused"


def larger_buffer(case):
    case.fill()
    case.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * case.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
    case.drain()
    before, case.kept, case.refused = len(case.kept), [], []
    case.fill()
    return "more" if len(case.kept) > before else "as many" if len(case.kept) == before else "fewer"


def option_afterwards(case):
    case.fill()
    case.socket.setsockopt(SOL_NETLINK, NO_ENOBUFS, 1)
    seen = case.drain()
    case.kept = []
    again = case.fill().drain()
    return f"{seen.count('ENOBUFS')} then {again.count('ENOBUFS')}"


def peeked(case):
    case.fill()
    seen = []
    for flags in (socket.MSG_PEEK, 0):
        try:
            seen.append(case.words(case.channel.number(case.socket.recv(1 << 16, flags))))
        except OSError as error:
            seen.append(errno_name(error.errno))
    return " then ".join(seen)


def beyond(case):
    """How far the receive memory goes beyond SO_RCVBUF, as many messages as find room."""
    case.fill()
    over = case.before.rmem - case.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    each = case.before.rmem // len(case.kept)
    return "not beyond" if over <= 0 else "by less than a message" if over < each else "by more"


def large(case):
    """A message as long as the whole buffer, to an empty one; then a small one."""
    case.channel.length = case.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    seen = ["delivered" if case.send() else "refused"]
    case.channel.length = 0
    seen.append("delivered" if case.send() else "refused")
    return f"{' then '.join(seen)}; {settled(case.drain(), case.kept)}"


def neighbour(case):
    """Another receiver of the group, with room."""
    other = case.host.socket(socket.AF_NETLINK, socket.SOCK_RAW, case.channel.protocol)
    other.bind((0, 0))
    other.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, case.channel.group)
    other.setblocking(False)
    case.fill()
    seen = []
    while select.select([other], [], [], 0)[0]:
        seen.append(case.channel.number(other.recv(1 << 16)))
    return settled(seen, list(range(case.first, case.next)))


# By column: what is done, and what must be seen by a channel, with ENOBUFS or without.
CASES = {
    "the first message": first_fits, "what the sender of a refused one hears": sender_told, "drops in /proc/net/netlink": drops,
    "epoll": readiness, "SO_ERROR": error_option, "the first two reads": first_reads, "the kept messages": kept_messages,
    "ENOBUFS of one overrun": errors_of_one, "ENOBUFS of two overruns": errors_of_two, "receive memory, full and drained": memory,
    "a message after it was drained": afterwards, "a message after three quarters are read": half_read,
    "a message after the error is read": error_read, "messages in twice the buffer": larger_buffer,
    "ENOBUFS, before and after NO_ENOBUFS is set": option_afterwards, "peek, then read": peeked,
    "receive memory beyond SO_RCVBUF": beyond, "a message as long as the buffer": large, "the group's other receiver": neighbour,
}
CONGESTED = Measured("netlink(7) does not say whether a receiver that was overrun must be drained before it gets more")


def cells(channel, options):
    error = channel.lossy and NO_ENOBUFS not in options
    once = OneOf(("1 then 0", "0 then 0"), "netlink(7): the flag avoids ENOBUFS errors; of one that waits it says nothing")
    return {
        "the first message": "delivered, the sender: done",
        "what the sender of a refused one hears": channel.told,
        "drops in /proc/net/netlink": "all that were refused" if channel.lossy else "none",
        "epoll": "IN ERR" if error else "IN",
        "SO_ERROR": "ENOBUFS then none" if error else "none then none",
        "the first two reads": "ENOBUFS then the oldest" if error else "the oldest then the next",
        "the kept messages": "all, in order",
        "ENOBUFS of one overrun": "1" if error else "0",
        "ENOBUFS of two overruns": "2" if error else "0",
        "receive memory, full and drained": "some, then 0",
        "a message after it was drained": "delivered, the sender: done",
        "a message after three quarters are read": CONGESTED if error else "delivered",
        "a message after the error is read": CONGESTED if error else "refused",
        "messages in twice the buffer": "more",
        "ENOBUFS, before and after NO_ENOBUFS is set": once if error else "0 then 0",
        "peek, then read": "ENOBUFS then the oldest" if error else "the oldest then the oldest",
        "receive memory beyond SO_RCVBUF": Measured("socket(7) calls it the maximum, and not what a message counts for"),
        "a message as long as the buffer": LeftOut("the kernel decides how long its messages are") if channel.protocol != USERSOCK else
        Measured("netlink(7) does not say whether an empty buffer takes what is larger than itself"),
        "the group's other receiver": "all, in order" if channel.group else LeftOut("there is one receiver"),
    }


OVERRUN = Table("netlink.overrun", "channel, options and buffer", "case", "netlink(7); send(2), EAGAIN; socket(7), SO_ERROR", {
    f"{name}{options}, {size}": cells(channel, numbers)
    for name, channel in CHANNELS.items() for options, numbers in OPTIONS.items() for size in BUFFERS})


@pytest.mark.table(OVERRUN)
@pytest.mark.parametrize("row", OVERRUN.rows)
def test_overrun_receiver_learns_what_it_missed_and_recovers(net, row, table):
    """Each cell has a receiver of its own, and messages that no other cell has."""
    host, = net.nodes("server")
    name, _, rest = row.partition(", ")
    words, _, size = f", {rest}".rpartition(", ")
    first = 1
    for column in table:
        case = Overrun(host, CHANNELS[name](host), first, BUFFERS[size], OPTIONS[words])
        table.saw(CASES[column](case))
        first = case.next
