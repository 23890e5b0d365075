"""Protocol counters of a network namespace."""

from collections.abc import Iterable, Mapping
from functools import cache, partial
from itertools import chain

from netns.errors import MissingFeature
from netns.observe import procnet

_SOCKSTATS = ("sockstat", "sockstat6")
# Of these the counters that are per namespace.
_OWN = ("inuse", "orphan", "tw")
_NETSTAT = ("TcpExt", "IpExt", "MPTcpExt")
_BY_TYPE = "Type"
_INTERFACE = "dev_snmp6"
# Optional in the kernel: CONFIG_XFRM_STATISTICS.
_XFRM = "xfrm_stat"


class Counters:
    """Counters by name: "Tcp.OutSegs", "TcpExt.TCPKeepAlive", "Ip6.InReceives", "sockstat.TCP.inuse", "XfrmOutNoStates".

    Reading copies only the raw text, which is parsed at first access. A counter that the kernel does not have raises
    MissingFeature. The kernel lists ICMP messages by type ("IcmpMsg.InType3") only once they have occurred; others are 0.
    Source: proc_net(5), Documentation/networking/snmp_counter.rst, xfrm_proc.rst.
    """

    def __init__(self, texts: dict[str, bytes]) -> None:
        self._texts = texts
        self._tables: dict[str, dict[str, bytes]] = {}

    @classmethod
    def read(cls, *files: str) -> "Counters":
        """The counters of the calling thread's namespace; with `files` of /proc/net only theirs."""
        return cls({file: _read(file) for file in files or _FILES})

    @classmethod
    def read_interface(cls, name: str) -> "Counters":
        """The IPv6 counters of one interface in the calling thread's namespace; IPv4 has none. Empty if the interface has none
        or is gone."""
        try:
            return cls({_INTERFACE: procnet.read(f"{_INTERFACE}/{name}")})
        except FileNotFoundError:
            return cls({})

    @classmethod
    def read_one(cls, name: str) -> int:
        """One counter of the calling thread's namespace; reads only its file. Raises MissingFeature."""
        file = _file(name)
        return cls({file: _read(file)})[name]

    @property
    def texts(self) -> dict[str, str]:
        """What the kernel said, by file; Counters.parsed() reads it."""
        return {file: text.decode() for file, text in self._texts.items()}

    @classmethod
    def parsed(cls, texts: dict[str, str]) -> "Counters":
        """Counters whose `texts` were read elsewhere."""
        return cls({file: text.encode() for file, text in texts.items()})

    def __getitem__(self, name: str) -> int:
        table = self._table(_file(name))
        if name not in table and _BY_TYPE not in name:
            raise MissingFeature(f"the kernel has no counter {name}")
        return int(table.get(name, 0))

    def icmp_by_type(self, version: int, way: str) -> int:
        """All ICMP messages, counted by type, that came ("In") or were sent ("Out") over this version of IP. It looks for the few lines of
        the text: each test asks, and parsing all takes ten times as long."""
        start = way.encode()
        if version == 6:
            return sum(int(line.split(None, 2)[1]) for line in self._texts["snmp6"].split(b"\nIcmp6%bType" % start)[1:])
        # The kernel prints a pair of lines for every 16 types: icmpmsg_put().
        lines = [line.partition(b"\n")[0].split() for line in self._texts["snmp"].split(b"\nIcmpMsg:")[1:]]
        return sum(int(number) for names, numbers in zip(lines[::2], lines[1::2])
                   for name, number in zip(names, numbers) if name.startswith(start))

    def since(self, earlier: "Counters") -> "Counted":
        """The changes since `earlier`, by name."""
        before = earlier._values
        return Counted(self, {
            name: value - before.get(name, 0) for name, value in self._values.items() if value != before.get(name, 0)
        })

    def names(self) -> list[str]:
        """The names of all counters that this kernel has."""
        return sorted(self._values)

    def nonzero(self) -> "Counted":
        """The counters that are not 0. Only these are converted to numbers: most counters of a host are 0."""
        return Counted(self, {
            name: int(digits) for file, text in self._texts.items() for name, digits in _PARSERS[file](text) if digits != b"0"
        })

    @property
    def _values(self) -> dict[str, int]:
        return {name: int(digits) for file in self._texts for name, digits in self._table(file).items()}

    def _table(self, file: str) -> dict[str, bytes]:
        """A file's counters as digits. Files are parsed on demand: together they have 600 counters, and a test reads one."""
        if file not in self._tables:
            self._tables[file] = dict(_PARSERS[file](self._texts[file]))
        return self._tables[file]


class Counted(dict):
    """Nonzero counters by name; other counters are not listed and read as 0. A counter that the kernel does not have raises
    MissingFeature."""

    def __init__(self, counters: Counters, values: dict[str, int]) -> None:
        super().__init__(values)
        self._counters = counters

    def __missing__(self, name: str) -> int:
        return 0 * self._counters[name]


def nonzero_of_host(read: Mapping[str, Counters]) -> dict[str, int]:
    """The counters that are not 0 and belong to this namespace, by name and place (" on INTERFACE")."""
    return {
        name + where: value for where, part in read.items() for name, value in part.nonzero().items()
        if not name.startswith("sockstat") or name.endswith(_OWN)
    }


def _read(file: str) -> bytes:
    try:
        return procnet.read(file)
    except FileNotFoundError:
        if file != _XFRM:
            raise
        return b""


def _file(name: str) -> str:
    group, dot, _column = name.partition(".")
    if not dot:
        return _XFRM
    if group in _SOCKSTATS:
        return group
    if group.endswith("6"):
        return "snmp6"
    return "netstat" if group in _NETSTAT else "snmp"


# Names are built once; the rest of each of thousands of readings costs little compared with the kernel's own part.
_Parsed = Iterable[tuple[str, bytes]]


def _paired(text: bytes) -> _Parsed:
    """snmp and netstat: for each group a line of names, then a line of numbers."""
    lines = text.splitlines()
    return chain.from_iterable(zip(_columns(names), numbers.split()[1:]) for names, numbers in zip(lines[::2], lines[1::2]))


@cache
def _columns(line: bytes) -> list[str]:
    group, *columns = line.decode().split()
    return [f"{group[:-1]}.{column}" for column in columns]


def _listed(text: bytes) -> _Parsed:
    """snmp6 and xfrm_stat: a name and a number per line."""
    words = text.split()
    return zip(map(_grouped, words[::2]), words[1::2])


@cache
def _grouped(name: bytes) -> str:
    text = name.decode()
    group = next((prefix for prefix in ("UdpLite6", "Icmp6", "Udp6", "Ip6") if text.startswith(prefix)), None)
    return f"{group}.{text.removeprefix(group)}" if group else text


def _sockets(file: str, text: bytes) -> _Parsed:
    """A group per line, followed by alternating names and numbers."""
    for line in text.splitlines():
        group, *pairs = line.split()
        yield from zip(_socket_columns(file, group, tuple(pairs[::2])), pairs[1::2])


@cache
def _socket_columns(file: str, group: bytes, keys: tuple[bytes, ...]) -> list[str]:
    return [f"{file}.{group.decode()[:-1]}.{key.decode()}" for key in keys]


def _of_interface(text: bytes) -> _Parsed:
    """Like _listed(), after the line with the interface index."""
    return _listed(text.partition(b"\n")[2])


# The files of a namespace, and the parser of each.
_FILES = {
    "snmp": _paired, "netstat": _paired, "snmp6": _listed,
    **{file: partial(_sockets, file) for file in _SOCKSTATS}, _XFRM: _listed,
}
_PARSERS = {**_FILES, _INTERFACE: _of_interface}
