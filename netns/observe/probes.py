"""The kernel's mechanisms to report calls of its functions, each with a count of its reports.

They see the whole machine, and a killed process leaves its tracefs state behind: only for a dedicated machine.
"""

import array
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from netns.errors import MissingFeature, missing_feature
from netns.named import NamedList
from netns.observe import bpf
from netns.observe.drops import TRACEFS

_KPROBE_EVENTS = TRACEFS / "kprobe_events"
_BUFFER_KIB = 512
_BTF = Path("/sys/kernel/btf/vmlinux")
_LOST = ("overrun", "commit overrun", "dropped events")
_FUNC = 12
_PERF_TYPE_TRACEPOINT = 2                       # include/uapi/linux/perf_event.h
# Words after the common three of each BTF type, by kind: fixed, and per member. Source: Documentation/bpf/btf.rst.
_FIXED = {1: 1, 3: 3, 14: 1, 17: 1}
_EACH = {4: 3, 5: 3, 6: 2, 13: 2, 15: 3, 19: 3}


@dataclass(frozen=True)
class Probe:
    """`events()` is the number of calls reported so far, `missed()` the number that the kernel says it missed; for a BPF program
    `runs()` is the kernel's count of its runs, while kernel.bpf_stats_enabled is 1."""

    events: Callable[[], int]
    missed: Callable[[], int] = lambda: 0
    runs: Callable[[], int] = lambda: 0


@contextmanager
def kprobe(function: str, kind: str = "p", thread: int | None = None, after: str = "") -> Iterator[Probe]:
    """A kprobe ("p"), a kretprobe ("r") or a kretprobe for at most so many concurrent calls ("r1"), recorded as an event;
    with `thread` only calls by this thread (set_event_pid), with `after` only from the first call of that function on
    (trigger enable_event).

    Raises MissingFeature if tracefs cannot be used or the kernel has no such function. Source:
    Documentation/trace/kprobetrace.rst, Documentation/trace/events.rst.
    """
    name, switch = f"kdrift_{function}", f"kdrift_{after}_switch"
    instance = TRACEFS / "instances" / name
    events = instance / "events/kprobes"
    with _event(kind, name, function), _event("p", switch, after) if after else nullcontext():
        instance.mkdir()
        try:
            (instance / "buffer_size_kb").write_text(str(_BUFFER_KIB))
            if thread is not None:
                (instance / "set_event_pid").write_text(str(thread))
            trigger = f"enable_event:kprobes:{name}"
            file, on, off = (events / switch / "trigger", trigger, f"!{trigger}") if after else (events / name / "enable", "1", "0")
            file.write_text(on)
            yield Probe(lambda: _recorded(instance), lambda: _missed(name, instance))
            file.write_text(off)
        finally:
            instance.rmdir()


@contextmanager
def counter_of(function: str) -> Iterator[Callable[[], int]]:
    """perf's own count, for calls by this thread, of the event that kprobe() has created for this function; only within that
    block. Raises OSError."""
    identifier = int((TRACEFS / "events/kprobes" / f"kdrift_{function}" / "id").read_text())
    event = bpf.perf_event(struct.pack("=IIQ", _PERF_TYPE_TRACEPOINT, bpf.PERF_ATTR_SIZE, identifier), thread=0, cpu=-1)
    try:
        yield lambda: int.from_bytes(os.read(event, 8), "little")
    finally:
        os.close(event)


@contextmanager
def _event(kind: str, name: str, function: str) -> Iterator[None]:
    _tell(_KPROBE_EVENTS, f"{kind}:{name} {function}", f"no kprobe on {function}")
    try:
        yield
    finally:
        _tell(_KPROBE_EVENTS, f"-:{name}", name)


def _tell(file: Path, line: str, what: str) -> None:
    try:
        # Not open(): its mode "a" seeks to the end, which these files refuse; its mode "w" empties them.
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise missing_feature(what, error) from error


def _statistics(instance: Path) -> Iterator[dict[str, str]]:
    for file in instance.glob("per_cpu/cpu*/stats"):
        yield dict(line.split(": ") for line in file.read_text().splitlines())


def _recorded(instance: Path) -> int:
    return sum(int(each["entries"]) for each in _statistics(instance))


def _missed(name: str, instance: Path) -> int:
    """Calls that the probe missed (kprobe_profile), and events for which the buffer had no room."""
    profiles = (TRACEFS / "kprobe_profile").read_text().splitlines()
    profile = NamedList(f"lines of {name} in kprobe_profile", (line for line in profiles if line.split()[0] == name)).only()
    lost = sum(int(each[kind]) for each in _statistics(instance) for kind in _LOST)
    return int(profile.split()[2]) + lost


@contextmanager
def raw_tracepoint(name: str) -> Iterator[Probe]:
    """A counting BPF program at a tracepoint. Raises MissingFeature if bpf(2) is not permitted."""
    with _attached(lambda program: bpf.load(bpf.RAW_TRACEPOINT, program), lambda program: bpf.attach(program, name)) as probe:
        yield probe


@contextmanager
def fexit(function: str) -> Iterator[Probe]:
    """A counting BPF program at a function's return. Raises MissingFeature if the kernel has no BTF for it."""
    function_id = _btf_id(function)
    with _attached(lambda program: bpf.load(bpf.TRACING, program, bpf.FEXIT, function_id), bpf.attach) as probe:
        yield probe


@contextmanager
def bpf_kprobe(function: str) -> Iterator[Probe]:
    """A counting BPF program at a perf kprobe. Raises MissingFeature if perf has none."""
    with _attached(lambda program: bpf.load(bpf.KPROBE, program), lambda program: bpf.attach_kprobe(program, function)) as probe:
        yield probe


@contextmanager
def _attached(load: Callable[[bytes], int], attach: Callable[[int], int]) -> Iterator[Probe]:
    counter = bpf.counter()
    try:
        program = load(bpf.count_in(counter))
        attached = attach(program)
        try:
            yield Probe(lambda: bpf.counted(counter), runs=lambda: bpf.runs(program))
        finally:
            os.close(attached)
            os.close(program)
    finally:
        os.close(counter)


def _btf_id(function: str) -> int:
    """The BTF type ID of a function, counted from 1. Raises MissingFeature."""
    strings, functions = _btf()
    if number := functions.get(strings.find(b"\0" + function.encode() + b"\0") + 1):
        return number
    raise MissingFeature(f"the kernel has no BTF for {function}")


@cache
def _btf() -> tuple[bytes, dict[int, int]]:
    """The string section of the kernel's BTF, and the type ID of each function by the offset of its name. Raises
    MissingFeature. Source: Documentation/bpf/btf.rst."""
    try:
        data = _BTF.read_bytes()
    except OSError as error:
        raise missing_feature("the kernel has no BTF", error) from error
    header, types_at, types_size, strings_at, strings_size = struct.unpack_from("=4xIIIII", data)
    strings = data[header + strings_at:header + strings_at + strings_size]
    words = array.array("I", data[header + types_at:header + types_at + types_size])
    # The size of each kind in words, without and per member, as lists: no call for each of 100,000 types.
    sizes, sizes_of_members = ([table.get(kind, 0) for kind in range(32)] for table in (_FIXED, _EACH))
    at, number, functions = 0, 0, {}
    while at < len(words):
        number += 1
        info = words[at + 1]
        kind = info >> 24 & 31
        if kind == _FUNC:
            functions[words[at]] = number
        at += 3 + sizes[kind] + sizes_of_members[kind] * (info & 0xFFFF)
    return strings, functions
