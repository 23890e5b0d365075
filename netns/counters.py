"""The kernel's protocol counters of one network namespace."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

# /proc/net is the main thread's; this one is the calling thread's.
_DIRECTORY = Path("/proc/thread-self/net")
_SOCKSTATS = ("sockstat", "sockstat6")
# Not every kernel counts these: CONFIG_XFRM_STATISTICS.
_XFRM = "xfrm_stat"


class Counters:
    """Counters by name: "Tcp.OutSegs", "TcpExt.TCPKeepAlive", "Ip6.InReceives", "sockstat.TCP.inuse", "XfrmOutNoStates".

    Reading takes the raw text only; it is parsed at the first look. A counter that the kernel does not have raises
    KeyError. Source: proc_net(5), Documentation/networking/snmp_counter.rst, xfrm_proc.rst.
    """

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts
        self._tables: dict[str, dict[str, int]] = {}

    @classmethod
    def read(cls) -> "Counters":
        """The counters of the namespace that the calling thread is in."""
        texts = {name: (_DIRECTORY / name).read_text() for name in _FILES if name != _XFRM}
        try:
            texts[_XFRM] = (_DIRECTORY / _XFRM).read_text()
        except FileNotFoundError:
            texts[_XFRM] = ""
        return cls(texts)

    def __getitem__(self, name: str) -> int:
        return self._table(self._file(name))[name]

    def get(self, name: str) -> int:
        """As [], but 0 for a counter that the kernel does not have: some appear when they first count."""
        return self._table(self._file(name)).get(name, 0)

    def since(self, earlier: "Counters") -> dict[str, int]:
        """What changed since then, by name."""
        before = earlier._values
        return {
            name: value - before.get(name, 0) for name, value in self._values.items() if value != before.get(name, 0)
        }

    def nonzero(self) -> dict[str, int]:
        return {name: value for name, value in self._values.items() if value}

    @property
    def _values(self) -> dict[str, int]:
        return {name: value for file in self._texts for name, value in self._table(file).items()}

    def _file(self, name: str) -> str:
        group, dot, _column = name.partition(".")
        if not dot:
            return _XFRM
        if group in _SOCKSTATS:
            return group
        if group.endswith("6"):
            return "snmp6"
        return "snmp" if f"\n{group}: " in f"\n{self._texts['snmp']}" else "netstat"

    def _table(self, file: str) -> dict[str, int]:
        """A file's counters. Only the files that are asked for are parsed: all of them have 600, and a test looks at one."""
        if file not in self._tables:
            self._tables[file] = dict(_FILES[file](self._texts[file].splitlines()))
        return self._tables[file]


def _paired(lines: list[str]) -> Iterator[tuple[str, int]]:
    """snmp and netstat: a line of names, then one of numbers, for each group."""
    for names, numbers in zip(lines[::2], lines[1::2]):
        group, *columns = names.split()
        yield from zip((f"{group[:-1]}.{column}" for column in columns), map(int, numbers.split()[1:]))


def _listed(lines: list[str]) -> Iterator[tuple[str, int]]:
    for name, number in map(str.split, lines):
        group = next(prefix for prefix in ("UdpLite6", "Icmp6", "Udp6", "Ip6") if name.startswith(prefix))
        yield f"{group}.{name.removeprefix(group)}", int(number)


def _sockets(file: str, lines: list[str]) -> Iterator[tuple[str, int]]:
    for line in lines:
        group, *pairs = line.split()
        yield from zip((f"{file}.{group[:-1]}.{key}" for key in pairs[::2]), map(int, pairs[1::2]))


def _xfrm(lines: list[str]) -> Iterator[tuple[str, int]]:
    for name, number in map(str.split, lines):
        yield name, int(number)


# Each file, and what makes counters of its lines.
_FILES = {
    "snmp": _paired, "netstat": _paired, "snmp6": _listed,
    **{file: partial(_sockets, file) for file in _SOCKSTATS}, _XFRM: _xfrm,
}
