"""The kernel's protocol counters of one network namespace."""

from functools import cached_property
from pathlib import Path

# /proc/net is the main thread's; this one is the calling thread's.
_DIRECTORY = Path("/proc/thread-self/net")


class Counters:
    """Counters by name: "Tcp.OutSegs", "TcpExt.TCPKeepAlive", "Ip6.InReceives", "sockstat.TCP.inuse", "XfrmOutNoStates".

    Reading takes the raw text only; it is parsed at the first look. A counter that the kernel does not have raises
    KeyError. Source: proc_net(5), Documentation/networking/snmp_counter.rst, xfrm_proc.rst.
    """

    _TABLES = ("snmp", "netstat")
    _LISTS = ("snmp6",)
    _SOCKSTATS = ("sockstat", "sockstat6")
    # Not every kernel counts these: CONFIG_XFRM_STATISTICS.
    _XFRM = "xfrm_stat"

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts

    @classmethod
    def read(cls) -> "Counters":
        """The counters of the namespace that the calling thread is in."""
        texts = {name: (_DIRECTORY / name).read_text() for name in cls._TABLES + cls._LISTS + cls._SOCKSTATS}
        try:
            texts[cls._XFRM] = (_DIRECTORY / cls._XFRM).read_text()
        except FileNotFoundError:
            texts[cls._XFRM] = ""
        return cls(texts)

    def __getitem__(self, name: str) -> int:
        return self._values[name]

    def since(self, earlier: "Counters") -> dict[str, int]:
        """What changed since then, by name."""
        before = earlier._values
        return {
            name: value - before.get(name, 0) for name, value in self._values.items() if value != before.get(name, 0)
        }

    def nonzero(self) -> dict[str, int]:
        return {name: value for name, value in self._values.items() if value}

    @cached_property
    def _values(self) -> dict[str, int]:
        values: dict[str, int] = {}
        for table in self._TABLES:
            lines = self._texts[table].splitlines()
            for names, numbers in zip(lines[::2], lines[1::2]):
                group, *columns = names.split()
                values.update(zip((f"{group[:-1]}.{column}" for column in columns), map(int, numbers.split()[1:])))
        for name, number in (line.split() for table in self._LISTS for line in self._texts[table].splitlines()):
            group = next(prefix for prefix in ("UdpLite6", "Icmp6", "Udp6", "Ip6") if name.startswith(prefix))
            values[f"{group}.{name.removeprefix(group)}"] = int(number)
        for table in self._SOCKSTATS:
            for line in self._texts[table].splitlines():
                group, *pairs = line.split()
                values.update(zip((f"{table}.{group[:-1]}.{key}" for key in pairs[::2]), map(int, pairs[1::2])))
        values.update((name, int(number)) for name, number in map(str.split, self._texts[self._XFRM].splitlines()))
        return values
