"""The signature of a failure: one line that is the same each time it occurs, by which a known issue is recognised.

- of an assertion: its first line, the items in which two dictionaries differ, and its statement in the test
- of another exception: type and text, and the statement of the test
- of a kernel that died: the first line of the oops, and the function in RIP
- of a kernel that complains: the first line of its complaint
Numbers, times, IP, MAC and object addresses are generalised: `#`, ADDRESS. An errno becomes its name, and 0 stays 0: none is a
different failure from too few. The statement is the test's own, word for word.
"""
import errno
import re

_MOST = 400                                 # characters; the rest adds nothing
_STAMP = re.compile(r"^\s*(?:<\d>)?\[\s*\d+\.\d+\]\s*")
_RIP = re.compile(r"RIP: 0010:(?:0x)?([\w.]+?)(?:\.(?:cold|isra|part|constprop)[\w.]*)?\+0x")
# The watchdog stops the processor anywhere in the loop.
_ANYWHERE = re.compile(r"soft lockup|hard LOCKUP|self-detected stall|^Kernel panic|^hang:")
_ENDED = re.compile(r"^the (?:kernel crashed|machine was lost): ")
_COMPLAINED = re.compile(r"^(?:Failed: )?the kernel complains:\n")
_STATEMENT = re.compile(r"(?m)^>\s+(\S.*)$")
_DIFFERS = re.compile(r"(?m)^\s*(\{.* != .*\})\s*$")
_ERRNO = re.compile(r"\[Errno (\d+)\]")
_GENERAL = tuple((re.compile(pattern), general) for pattern, general in (
    (r"\s+", " "),
    (r" (?:object |instance )?at 0x[0-9a-f]+", ""),
    (r"\b0x[0-9a-fA-F]+", "#"),
    (r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", "ADDRESS"),
    # IPv6: seven colons, or `::` and a digit or letter at one end.
    (r"(?<![\w:.])(?:(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}|(?:[0-9a-f]{1,4}(?::[0-9a-f]{1,4})*)?::(?:[0-9a-f]{1,4}(?::[0-9a-f]{1,4})*)?)"
     r"(?![\w:])", "ADDRESS"),
    (r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w)", "ADDRESS"),
    (r"(?<![\w.])(?!0(?![.\w]))[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?=(?:[mun]?s|[kM]?B)?(?!\w))", "#"),
    (r"\b(?=[a-f]*\d)[0-9a-f]{8,}\b", "#"),
    (r"\bhost\d+\b", "host#"),              # interchangeable hosts
))


def signature(message: str, traceback: str = "") -> str:
    """Of a failure: `message` and `traceback` as in results.json.  Empty if the message is empty."""
    if ended := _ENDED.match(message):
        return _of_ended_machine(message[ended.end():])
    if complained := _COMPLAINED.match(message):
        lines = [_STAMP.sub("", line) for line in message[complained.end():].splitlines()]
        return general(f"the kernel complains: {next((line for line in lines if line.strip()), '')}")
    first = message.partition("\n")[0]
    if not first.strip():
        return ""
    parts = [general(part) for part in (first, *_DIFFERS.findall(message)[:3])]
    statement = _STATEMENT.search(traceback)
    # A test that waits forever does not always wait in the same line.
    if statement and not message.startswith("Failed: Timeout"):
        parts.append(f"at: {' '.join(statement[1].split())[:_MOST]}")
    return "; ".join(parts)


def general(text: str) -> str:
    """One line in which what varies from run to run is generalised; applying it again changes nothing."""
    text = _ERRNO.sub(lambda number: errno.errorcode.get(int(number[1]), number[0]), text)
    for pattern, word in _GENERAL:
        text = pattern.sub(word, text)
    return text.strip()[:_MOST]


def _of_ended_machine(console: str) -> str:
    lines = [_STAMP.sub("", line) for line in console.splitlines()]
    first = lines[0] if lines else ""
    rip = None if _ANYWHERE.search(first) else _RIP.search(console)
    # The task's name and number in a lockup say nothing.
    first = re.sub(r" \[\S+:\d+\]$", "", first)
    return general(first) + (f" in {rip[1]}" if rip else "")


def matches(recorded: str, seen: str) -> bool:
    """Whether a failure shows the recorded signature.

    pytest cuts long values with `...` unless -vv is given; without a traceback (--tb=no) there is no statement.
    """
    recorded, where = _split_statement(recorded)
    seen, here = _split_statement(seen)
    if where and here and where != here:
        return False
    return recorded == seen or _pattern(recorded).fullmatch(seen) is not None or _pattern(seen).fullmatch(recorded) is not None


def _split_statement(text: str) -> tuple[str, str]:
    what, _, where = text.partition("; at: ")
    return what, where


def _pattern(text: str) -> re.Pattern[str]:
    """`...` matches anything if the text beside it is long enough to tell failures apart."""
    parts = text.split("...")
    return re.compile(".*".join(map(re.escape, parts)) if sum(map(len, parts)) >= 20 else re.escape(text))
