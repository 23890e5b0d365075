"""What a guest is told comes when it asks, in the same pieces however the session has sent it."""

import contextlib
import os
import socket
import threading
from types import SimpleNamespace

import pytest
from execnet.gateway_base import Message, get_execmodel

from session.view import guest_arguments
from vm import inlet
from vm.inlet import BELL, ENDED, GATE, HEADER, TABLE, GatewayIO
from vm.line import SIZE, Frames, Line, narrow

FRAMES = [b"\x03" + bytes([0, 0, 0, channel]) + len(data).to_bytes(4, "big") + data
          for channel, data in enumerate((b"program", b"setup", b"", b"ninebytes", b"x" * 3000))]


@pytest.mark.parametrize("size", [1, 8, 9, 10, 1000, 1 << 16])
def test_pieces_do_not_depend_on_how_the_bytes_have_come(size):
    stream, frames = b"".join(FRAMES), Frames()
    assert [frame for start in range(0, len(stream), size) for frame in frames.cut(stream[start:start + size])] == FRAMES


def test_what_a_guest_writes_can_be_read_before_qemu_has_opened_it(tmp_path):
    """On a busy host QEMU takes connections some time before it makes the file."""
    line = Line(tmp_path)
    line.prepare()
    line.open()
    line.close()


class Inlet:
    """Has the frames for the guest, and counts what it asks for."""

    def __init__(self):
        self.left = list(FRAMES)
        self.asked = 0

    def ask(self):
        self.asked += 1
        return self.left.pop(0) if self.left else b""


def test_a_guest_asks_for_nothing_that_it_does_not_want():
    """It reads a program and its argument at once, then a frame each time that it wants one; at the end all there is."""
    inlet = Inlet()
    io = GatewayIO(inlet, -1, get_execmodel("thread"))
    read, two, over = [], threading.Event(), threading.Event()

    def receive():                          # as execnet's receiver thread does
        try:
            while True:
                read.append(Message.from_io(io).data)
                if len(read) == 2:
                    two.set()
        except EOFError:
            io.close_read()
            over.set()

    threading.Thread(target=receive, daemon=True).start()
    assert two.wait(10)
    assert inlet.asked == 2

    io.take()
    assert (read[2:], inlet.asked) == ([b""], 3)
    io.take()
    assert (read[3:], inlet.asked) == ([b"ninebytes"], 4)

    io.take_all()
    assert over.wait(10)
    assert read[4:] == [b"x" * 3000]
    io.take()                               # nobody is kept waiting any more


def test_a_guest_is_not_told_what_is_the_sessions_affair():
    words = ["--report=/tmp/a", "--bug-report", "/tmp/b", "-k", "keepalive", "--kernel", "6.12", "--kernel=6.1", "--seed=2", "-v", "tests"]
    assert guest_arguments(words) == ("--report=there", "--bug-report=there", "-k", "keepalive", "-v", "tests")


def test_a_guest_is_let_on_once_for_each_byte():
    """However many it would send."""
    ours, theirs = narrow()
    with ours, theirs:
        for _ in range(100):
            with pytest.raises(BlockingIOError):
                theirs.send(b"?")
            assert ours.recv(1)
            assert theirs.send(b"?") == 1


class Guest:
    """Rings and waits as vm.inlet does, without a machine."""

    def __init__(self, line, directory):
        (directory / "input").write_bytes(bytes(SIZE))
        (directory / "output").touch()
        line.prepare()
        self.bell, self.gate = (socket.socket(fileno=os.dup(descriptor)) for descriptor in line.descriptors()[:2])
        self.gate.setblocking(False)
        line.started()
        line.open()
        self.input = directory / "input"

    def may_go_on(self):
        with contextlib.suppress(BlockingIOError):
            return self.gate.send(b"?") == 1
        return False

    def answer(self):
        memory = self.input.read_bytes()
        length = int.from_bytes(memory[:4], "little")
        return None if not length else b"" if length == ENDED else memory[HEADER:HEADER + length]


@pytest.fixture
def line(tmp_path):
    with contextlib.closing(Line(tmp_path)) as line:
        yield line


def test_a_question_is_answered_once_and_in_order(tmp_path, line):
    guest = Guest(line, tmp_path)
    line.put(b"first")
    line.put(b"")
    assert line.check_bell() and not line.answer()
    for expected in (b"first", b""):
        assert not guest.may_go_on()
        guest.bell.send(b"?")
        assert line.check_bell() and line.answer() and not line.answer()
        assert guest.answer() == expected and guest.may_go_on()
    guest.bell.close()
    assert not line.check_bell()


def test_a_guest_that_is_parked_goes_on_without_an_answer_and_finds_it_later(tmp_path, line):
    guest = Guest(line, tmp_path)
    line.put(b"before")
    guest.bell.send(b"?")
    assert line.check_bell() and line.answer() and guest.may_go_on()
    guest.bell.send(b"?")
    assert line.check_bell()
    line.park()
    line.park()
    assert guest.may_go_on() and not guest.may_go_on()
    assert guest.input.read_bytes() == bytes(SIZE)
    line.put(b"later")
    assert line.answer() and guest.answer() == b"later"
    assert not guest.may_go_on()


def test_a_kernel_without_ioperm_writes_to_the_ports_itself(tmp_path, monkeypatch):
    """Reading an attribute of its ACPI device has it do so, each time from the beginning."""
    monkeypatch.setattr(inlet, "libc", SimpleNamespace(ioperm=lambda *_: -1))
    monkeypatch.setattr(inlet, "ACPI_DEVICE", tmp_path / "sun")
    with pytest.raises(OSError, match="CONFIG_X86_IOPL_IOPERM or CONFIG_ACPI"):
        inlet.ringer()

    (tmp_path / "sun").write_text("0\n")
    ring = inlet.ringer()
    assert [ring(), ring()] == [b"0", b"0"]


def test_the_acpi_device_has_the_ports_and_its_parts_their_lengths():
    """ACPI specification, 20.2.4: two bits say how many bytes follow, the lowest digit is in the first."""
    assert TABLE[1:3] == bytes([0x40 | (len(TABLE) - 1) & 15, (len(TABLE) - 1) >> 4])
    device = TABLE.index(b"\x5b\x82") + 2
    assert TABLE[device:device + 2] == bytes([0x40 | (len(TABLE) - device) & 15, (len(TABLE) - device) >> 4])
    method = TABLE.index(b"\x14\x14_SUN") + 1
    assert TABLE[method] == len(TABLE) - method
    assert b"PORT\x01\x0b" + BELL.to_bytes(2, "little") + bytes([0x0a, GATE + 1 - BELL]) in TABLE
