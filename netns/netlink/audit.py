"""The kernel's audit system over netlink, in plain structs.

Source: include/uapi/linux/audit.h, kernel/audit.c, audit_set_pid(3), auditctl(8). The state is the whole machine's.
"""

import errno
import os
import re
import select
import socket
import struct
import time
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from netns.errors import ExpectationFailed, MissingFeature
from netns.netlink.message import HEADER, message
from netns.observe import procnet

_NETLINK_AUDIT = 9
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
_NLM_F_REQUEST, _NLM_F_ACK = 1, 4
_NLMSG_ERROR = 2
_READLOG = 1

AUDIT_GET = 1000
AUDIT_SET = 1001
AUDIT_USER = 1005
AUDIT_ADD_RULE = 1011
AUDIT_DEL_RULE = 1012
AUDIT_TRIM = 1014
AUDIT_MAKE_EQUIV = 1015
# What sudo(8) sends for each command.
AUDIT_USER_CMD = 1123

# The fields of rules: AUDIT_PID, AUDIT_EXE.
_PID, _EXE = 0, 112

FAIL_SILENT, FAIL_PRINTK, FAIL_PANIC = 0, 1, 2

_STATUS = struct.Struct("=11I")
_MASKS = {
    "enabled": 0x01, "failure": 0x02, "pid": 0x04, "rate_limit": 0x08, "backlog_limit": 0x10,
    "backlog_wait_time": 0x20, "lost": 0x40, "backlog_wait_time_actual": 0x80,
}
_FIELDS = ("mask", "enabled", "failure", "pid", "rate_limit", "backlog_limit", "lost", "backlog", "features",
           "backlog_wait_time", "backlog_wait_time_actual")


@dataclass(frozen=True)
class Status:
    """struct audit_status; the two times are in jiffies, `backlog` and the limits in records."""

    mask: int
    enabled: int
    failure: int
    pid: int
    rate_limit: int
    backlog_limit: int
    lost: int
    backlog: int
    features: int
    backlog_wait_time: int
    backlog_wait_time_actual: int


@dataclass(frozen=True)
class Record:
    """One audit record; `serial` numbers events through the life of the machine."""

    kind: int
    serial: int
    text: str

    @property
    def message(self) -> str | None:
        """What a program has logged, None if the record is the kernel's own."""
        found = re.search(r" msg='(.*)'$", self.text)
        return found and found[1]


class AuditSocket:
    """A socket to the audit system, for control, for sending user messages, and for receiving records.

    `receive_buffer` is in bytes as for SO_RCVBUF; with `multicast` it hears all records (audit's READLOG group).
    Raises MissingFeature if the kernel has no audit.
    """

    def __init__(self, receive_buffer: int | None = None, multicast: bool = False) -> None:
        try:
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_AUDIT)
        except OSError as error:
            if error.errno == errno.EPROTONOSUPPORT:
                raise MissingFeature("the kernel has no audit (CONFIG_AUDIT)") from error
            raise
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.bind((0, 0))
        if multicast:
            self.socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _READLOG)
        self._sequence = 0

    def close(self) -> None:
        self.socket.close()

    def send(self, kind: int, payload: bytes, acknowledge: bool = False) -> int:
        """Send one message, which the kernel handles before this returns; the sequence number. Raises OSError."""
        self.socket.sendto(self._message(kind, payload, acknowledge), (0, 0))
        return self._sequence

    def _message(self, kind: int, payload: bytes, acknowledge: bool = False) -> bytes:
        self._sequence += 1
        flags = _NLM_F_REQUEST | (_NLM_F_ACK if acknowledge else 0)
        return message(kind, flags, payload, self._sequence)

    def request(self, kind: int, payload: bytes, within: float = 30) -> int:
        """send() and wait for the acknowledgement; its number where that is not negative, else OSError of it.

        Raises ExpectationFailed without an answer `within` seconds.
        """
        (number,) = struct.unpack_from("=i", self._answer(_NLMSG_ERROR, self.send(kind, payload, True), within))
        if number < 0:
            raise OSError(-number, os.strerror(-number))
        return number

    def status(self, within: float = 30) -> Status:
        """The audit system's state now. Raises OSError if the kernel refuses, ExpectationFailed without a reply."""
        return _status(self._answer(AUDIT_GET, self.send(AUDIT_GET, b""), within))

    def statuses(self, count: int, within: float = 30) -> list[Status]:
        """status() `count` times, requested in one packet of bare headers. Raises OSError, ExpectationFailed."""
        before = self._sequence
        self.socket.sendto(b"".join(self._message(AUDIT_GET, b"") for _ in range(count)), (0, 0))
        # A thread of its own brings each answer (audit_send_reply_thread()), so that the second may be here first.
        answers = self._answers(AUDIT_GET, set(range(before + 1, before + count + 1)), within)
        return [_status(payload) for _sequence, payload in sorted(answers.items())]

    def set(self, **values: int) -> int:
        """Set the fields of these names, as in Status. Raises OSError.

        `lost=0` and `backlog_wait_time_actual=0` set that counter back and return what it was.
        """
        return self.request(AUDIT_SET, self.set_payload(values))

    def set_unacknowledged(self, **values: int) -> None:
        """set() without waiting for the acknowledgement."""
        self.send(AUDIT_SET, self.set_payload(values))

    @staticmethod
    def set_payload(values: dict[str, int]) -> bytes:
        mask = 0
        for name in values:
            mask |= _MASKS[name]
        return _STATUS.pack(*(mask if name == "mask" else values.get(name, 0) for name in _FIELDS))

    def register(self) -> None:
        """Become the audit daemon, which receives all records. Raises OSError."""
        self.set(pid=os.getpid())

    def unregister(self) -> None:
        """Stop being the audit daemon; returns when the kernel has handled it, whatever the receive buffer holds."""
        self.set_unacknowledged(pid=0)

    def set_pid_0(self) -> None:
        """Set the daemon's PID to 0 and wait for the acknowledgement. Raises OSError."""
        self.set(pid=0)

    def drain(self) -> None:
        """Read and discard all waiting messages, and a pending ENOBUFS."""
        while self._readable(0):
            try:
                self._read()
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def add_rule(self, syscall: int, pid: int) -> None:
        """Log each call of this number by this process, when it returns. Raises OSError."""
        self.request(AUDIT_ADD_RULE, _rule(syscall, _PID, pid))

    def delete_rule(self, syscall: int, pid: int) -> None:
        """Delete the rule of add_rule(). Raises OSError, ENOENT if there is no such rule."""
        self.request(AUDIT_DEL_RULE, _rule(syscall, _PID, pid))

    def add_program_rule(self, syscall: int, path: Path) -> None:
        """Log each call of this number by processes that run this program. Raises OSError."""
        self.request(AUDIT_ADD_RULE, _program_rule(syscall, path))

    def delete_program_rule(self, syscall: int, path: Path) -> None:
        """Delete the rule of add_program_rule(). Raises OSError, ENOENT if there is no such rule."""
        self.request(AUDIT_DEL_RULE, _program_rule(syscall, path))

    def user(self, text: str, kind: int = AUDIT_USER_CMD) -> None:
        """Log a message as sudo does, and wait for the acknowledgement. Raises OSError."""
        self.request(kind, text.encode() + b"\0")

    def users(self, text: str, count: int) -> float:
        """Send `count` messages without acknowledgement; the longest time in seconds that one of them took."""
        longest = 0.0
        for number in range(count):
            began = time.monotonic()
            self.send(AUDIT_USER, f"{text}-{number}".encode() + b"\0")
            longest = max(longest, time.monotonic() - began)
        return longest

    def receive(self, within: float = 0) -> list[Record]:
        """The waiting records, after up to `within` seconds for the first. Raises OSError: ENOBUFS if some are lost."""
        records = []
        while self._readable(within if not records else 0):
            kind, _sequence, payload = self._read()
            if kind >= AUDIT_USER and (found := re.match(rb"audit\(\d+\.\d+:(\d+)\): ?", payload)):
                text = payload[found.end():].rstrip(b"\0\n").decode(errors="replace")
                records.append(Record(kind, int(found[1]), text))
        return records

    def receive_until(self, message: str, within: float = 10) -> list[Record]:
        """The records up to the one with this message. Raises ExpectationFailed with the records received instead, OSError as receive()."""
        records, deadline = [], time.monotonic() + within
        while message not in (record.message for record in records):
            gone = deadline - time.monotonic()
            if gone <= 0:
                raise ExpectationFailed(f"audit daemon: no record {message!r} within {within:g} s; received {records!r}")
            records += self.receive(gone)
        return records

    def log_in(self, uid: int = 0) -> None:
        """Set this process's login UID, which makes the kernel itself write a record (AUDIT_LOGIN)."""
        Path("/proc/self/loginuid").write_text(str(uid))

    def row(self) -> "NetlinkRow":
        return netlink_row(os.fstat(self.socket.fileno()).st_ino)

    def _readable(self, within: float) -> bool:
        return bool(select.select([self.socket], [], [], within)[0])

    def _read(self) -> tuple[int, int, bytes]:
        data = self.socket.recv(1 << 16)
        _length, kind, _flags, sequence, _port = HEADER.unpack_from(data)
        # A record's length field leaves out the header ("length quirks", kauditd_send_multicast_skb()).
        return kind, sequence, data[HEADER.size:]

    def _answer(self, kind: int, sequence: int, within: float) -> bytes:
        return self._answers(kind, {sequence}, within)[sequence]

    def _answers(self, kind: int, sequences: Set[int], within: float) -> dict[int, bytes]:
        """By sequence number, once all are here."""
        deadline, found = time.monotonic() + within, {}
        while self._readable(max(0, deadline - time.monotonic())):
            got, number, payload = self._read()
            if number in sequences and got == kind:
                found[number] = payload
                if found.keys() == sequences:
                    return found
            if number in sequences and got == _NLMSG_ERROR:
                (code,) = struct.unpack_from("=i", payload)
                raise OSError(-code, os.strerror(-code))
        raise ExpectationFailed(f"no audit reply of message type {kind} within {within:g} s")


def _status(payload: bytes) -> Status:
    return Status(*_STATUS.unpack_from(payload.ljust(_STATUS.size, b"\0")))


def _program_rule(syscall: int, path: Path) -> bytes:
    text = os.fsencode(path)
    return _rule(syscall, _EXE, len(text), text)


def _rule(syscall: int, field: int, value: int, text: bytes = b"") -> bytes:
    """struct audit_rule_data: list "exit", action "always", one field."""
    EXIT, ALWAYS, EQUAL = 4, 2, 0x40000000
    mask = [0] * 64
    mask[syscall // 32] = 1 << syscall % 32
    one = [0] * 63
    fields = *mask, field, *one, value, *one, EQUAL, *one
    return struct.pack("=3I64I64I64I64II", EXIT, ALWAYS, 1, *fields, len(text)) + text


@dataclass(frozen=True)
class NetlinkRow:
    """A netlink socket as /proc/net/netlink shows it: bytes waiting to be read, and messages lost because the buffer was full."""

    rmem: int
    drops: int


def netlink_row(inode: int) -> NetlinkRow:
    """The row of the socket with this inode. Raises LookupError if there is none. Source: net/netlink/af_netlink.c."""
    for columns in procnet.rows("netlink"):
        if int(columns[9]) == inode:
            return NetlinkRow(rmem=int(columns[4]), drops=int(columns[8]))
    raise LookupError(f"no netlink socket with inode {inode}")
