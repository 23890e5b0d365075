"""Made-up results for the report page: many kernels and tests, failures with evidence and captures, hostile text."""

import base64
import zlib
from functools import cache

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from netns.observe.capture import Frame
from netns.packets.packet import pcap
from report.results import KernelResult, TestResult

HOSTILE = "</script><!--<img src=x onerror=hit()> \x1b[31mred\x07 \x00 \u202ekcab <b>&amp;\ud800 ${hit()} @data@ '\""
SHOWN = HOSTILE.translate(
    {0x1B: "\u241b", 0x07: "\u2407", 0x00: "\u2400", 0x202E: "\ufffd", 0xD800: "\ufffd"}
)  # as the page has it
OUTCOMES = ("failed", "crashed", "lost", "known", "fixed", "skipped")
CLIENT, SERVER, ROUTER = "192.0.2.1", "198.51.100.1", "192.0.2.254"
CLIENT6, SERVER6, ROUTER6 = "2001:db8:1::1", "2001:db8:2::1", "2001:db8:1::fe"


def kernels(count: int, functions: int) -> list[KernelResult]:
    """`functions` tests on each of `count` kernels, every fourth with two parameter sets; on the first all pass."""
    return [
        KernelResult(
            f"6.{number}",
            f"6.{number}",
            f"6.{number}.1-cloud-amd64",
            f"linux-image-6.{number}.1",
            f"6.{number}.1-1",
            "virtual",
            "tcg",
            "7.2.22",
            14.1,
            18.8,
            359.9,
            tests=[test for index in range(functions) for test in _tests(number, index)],
        )
        for number in range(count)
    ]


def _tests(kernel: int, index: int) -> list[TestResult]:
    file = f"tests/{('pmtu', 'keepalive', 'tcp')[index % 3]}/test_part_{index // 30}.py"
    function = f"{file}::test_promise_number_{index}_is_kept_by_the_kernel"
    outcome = OUTCOMES[index // 10 % len(OUTCOMES)] if kernel and index % 10 == 7 else "passed"
    return [
        _test(function + parameters, outcome, kernel)
        for parameters in (["[ipv4]", "[ipv6]"] if index % 4 == 0 else [""])
    ]


def _test(name: str, outcome: str, kernel: int) -> TestResult:
    test = TestResult(
        name,
        outcome,
        7922.8,
        0.7,
        promise="A vanished peer costs idle + count * interval, then ETIMEDOUT (RFC 1122, 4.2.3.6).",
    )
    if outcome == "passed":
        test.measurements = [
            {"name": "keepalive.dead_after", "value": 7922.75 + (kernel == 2), "unit": "s", "tolerance": 0.5}
        ]
    elif outcome != "fixed":
        test.message = "assert 1 == 2\n +  where 1 = seen()"
    if outcome in ("known", "fixed"):
        test.issue = "tcp-rmem-min"
    if outcome in ("failed", "crashed"):
        test.candidates = ["tcp: do not let tcp_rmem be set below 4096, in 6.18 and later"]
    if outcome == "failed":
        test.traceback = "    def test():\n>       assert 1 == 2\nE       assert 1 == 2\n\ntests/x.py:1: AssertionError"
        test.evidence = [
            {"title": "dropped packets", "text": "1 NETFILTER_DROP client"},
            *_addresses(),
            {"title": "counters of client, since its start", "text": "TcpExt.TCPTimeouts 9\n" * 300},
        ]
        test.captures = _captures()
    return test


def _addresses() -> list[dict]:
    hosts = {"client": (CLIENT, CLIENT6), "router": (ROUTER, ROUTER6), "server": (SERVER, SERVER6)}
    return [
        {
            "title": f"addresses and routes of {role}",
            "text": f"eth0: UP mtu 1500 {v4}/24 {v6}/64\ndefault via 203.0.113.1",
        }
        for role, (v4, v6) in hosts.items()
    ]


@cache
def _captures() -> list[dict]:
    return [
        {"host": "client", "base64": capture(STORY), "cut": 0},
        {"host": "server", "base64": capture(STORY[:2] * 150), "cut": 5},
    ]


def capture(packets: list[Packet]) -> str:
    """A pcap file in base64; each packet comes half a second after the one before."""
    frames = [bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet) for packet in packets]
    return base64.b64encode(
        pcap(
            [Frame(10**18 + index * 500_000_000, 1, 0, len(frame), frame) for index, frame in enumerate(frames)],
            48 * 1024,
        )[0]
    ).decode()


def _between(source: str, destination: str, sport: int, dport: int, **fields: object) -> Packet:
    layer = IPv6 if ":" in source else IP
    return layer(src=source, dst=destination) / TCP(sport=sport, dport=dport, **fields)


_DATA = _between(CLIENT, SERVER, 4000, 5000, flags="PA", seq=2**32 - 5, ack=101, window=500) / Raw(b"x" * 1400)
STORY = [
    _between(CLIENT, SERVER, 4000, 5000, flags="S", seq=2**32 - 6, window=64240),
    _between(SERVER, CLIENT, 5000, 4000, flags="SA", seq=100, ack=2**32 - 5, window=65160),
    _DATA,
    IP(src=ROUTER, dst=CLIENT) / ICMP(type=3, code=4, nexthopmtu=1300) / Raw(bytes(_DATA)[:28]),
    _between(SERVER, CLIENT, 5000, 4000, flags="A", seq=101, ack=1395, window=501),
    _between(CLIENT, SERVER, 4000, 5000, flags="A", seq=1394, ack=101, window=500),
    _between(CLIENT, SERVER, 4000, 5000, flags="RA", seq=1395, ack=101, window=0),
    IPv6(src=ROUTER6, dst=CLIENT6)
    / ICMPv6PacketTooBig(mtu=1280)
    / IPv6(src=CLIENT6, dst=SERVER6)
    / UDP(sport=53, dport=54),
    IPv6(src=CLIENT6, dst=SERVER6) / UDP(sport=53, dport=54) / Raw(b"1234567"),
    IP(src=CLIENT, dst=SERVER, proto=50) / Raw(bytes.fromhex("00001234 00000007") + bytes(40)),
    IP(src=CLIENT, dst=SERVER, proto=4) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / Raw(b"12"),
]
WORDS = [
    "TCP 4000 > 5000 [S] seq 0 len 0 win 64240",
    "TCP 5000 > 4000 [SA] seq 0 ack 1 len 0 win 65160",
    "TCP 4000 > 5000 [PA] seq 1 ack 1 len 1400 win 500",
    f"ICMP 3/4 fragmentation needed mtu 1300, about TCP {CLIENT} > {SERVER} 4000 > 5000",
    "TCP 5000 > 4000 [A] seq 1 ack 1401 len 0 win 501",
    "TCP 4000 > 5000 [A] seq 1400 ack 1 len 0 win 500 keepalive probe",
    "TCP 4000 > 5000 [RA] seq 1401 ack 1 len 0 win 0",
    f"ICMPv6 2/0 packet too big mtu 1280, about UDP {CLIENT6} > {SERVER6} 53 > 54",
    "UDP 53 > 54 len 7",
    "ESP spi 0x00001234 seq 7 len 48",
    "IPIP 10.0.0.1 > 10.0.0.2 UDP 1 > 2 len 2",
]


STATES = ("CLOSED", "LISTEN", "SYN-SENT", "SYN-RECEIVED", "ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "CLOSING", "LAST-ACK")
ANSWERS = ("RST", "nothing, ESTABLISHED", "challenge ACK, ESTABLISHED, TCPChallengeACK +1", "SYN-ACK, SYN-RECEIVED",
           "ACK, CLOSE-WAIT, ECONNRESET")
BEGAN = 10**9 + 0.25                        # of a row's first cell; packets of capture() come from 10**9 on, each second has two


def tabled(count: int, tables: int = 1, rows: int = 4, columns: int = 5) -> list[KernelResult]:
    """Kernels with rows of tables, over IPv4 and IPv6: one cell in nine differs on the last kernel, one in eleven on each;
    in the last row of IPv6 one is wrong on the last kernel, whose test fails; each third column is measured. Cells last a second."""
    found = kernels(count, 3)
    for number, kernel in enumerate(found):
        for table in range(tables):
            for family in ("ipv4", "ipv6"):
                kernel.tests += [_row(f"tcp.subject_{table}", family, row, columns, number, (count, rows)) for row in range(rows)]
    return found


def _row(table: str, family: str, row: int, columns: int, kernel: int, size: tuple[int, int]) -> TestResult:
    name = f"{STATES[row % len(STATES)]}{f', part {row // len(STATES)}' if row >= len(STATES) else ''}"
    last = kernel == size[0] - 1
    wrong = last and family == "ipv6" and row == size[1] - 1
    test = TestResult(f"tests/tcp/test_{table[4:]}.py::test_answer_of_a_state[{family}-{name}]", "failed" if wrong else "passed",
                      promise="An answer is as the state says.",
                      message=f"AssertionError: {table}, {name}: segment 0: wrong, expected RST (RFC 9293)" * wrong)
    for column in range(columns):
        place = row * columns + column
        text = ANSWERS[(place + (last if place % 9 == 4 else kernel if place % 11 == 7 else 0)) % len(ANSWERS)]
        expected = [] if column % 3 == 2 else [text, "or that"][:1 + column % 2]
        test.cells.append({"table": table, "row": name, "rows": "state", "column": f"segment {column}{', old data' * (column > 2)}",
                           "columns": "arriving segment", "seen": "wrong" if wrong and not column else text, "expected": expected,
                           "began": BEGAN + column})
    packed = base64.b64encode(zlib.compress(base64.b64decode(capture(STORY[:10])))).decode()
    test.captures = [{"host": host, "base64": packed, "cut": 0, "encoding": "deflate", "addresses": [v4, v6]}
                     for host, v4, v6 in (("client", CLIENT, CLIENT6), ("server", SERVER, SERVER6))]
    return test


def hostile_kernel() -> KernelResult:
    """Everything that is free text is HOSTILE; the capture is none."""
    test = TestResult(
        f"tests/pmtu/test_x.py::test_y[{HOSTILE}]",
        "failed",
        promise=HOSTILE,
        message=HOSTILE,
        traceback=HOSTILE,
        evidence=[{"title": HOSTILE, "text": HOSTILE}],
        captures=[{"host": HOSTILE, "base64": "bm8gcGNhcA==", "cut": 0}],
        measurements=[{"name": HOSTILE, "value": float("inf"), "unit": HOSTILE, "tolerance": float("nan")}],
        candidates=[HOSTILE],
        cells=[{"table": HOSTILE, "row": HOSTILE, "rows": HOSTILE, "column": HOSTILE, "columns": HOSTILE, "seen": HOSTILE,
                "expected": [HOSTILE + "2"], "began": 0.0}],
    )
    return KernelResult(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, qemu=HOSTILE, error=HOSTILE, tests=[test])
