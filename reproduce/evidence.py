"""The files of a bug report with the evidence of a failed test: packets, drops, counters, settings, the kernel's log."""
import base64
import copy
import re
from pathlib import Path

from common.project import PROJECT
from report.results import KernelResult, Run, TestResult, write_json

# The file for evidence whose title starts so; " of " is followed by a host.
_FILES = (
    ("topology", "topology.txt"), ("flow log", "ladder.txt"), ("dropped packets", "dropped-packets.txt"), ("kernel log", "dmesg.txt"),
    ("counters of", "counters.txt"), ("sysctls of", "sysctls.txt"), ("addresses and routes of", "addresses-and-routes.txt"),
    ("policies and SAs of", "policies-and-sas.txt"),
)
_OTHERS = "evidence.txt"


def write_evidence(directory: Path, test: TestResult, kernel: KernelResult, run: Run) -> None:
    texts: dict[str, list[str]] = {}
    for each in test.evidence:
        if each["title"].startswith("pcap of"):
            continue
        name = next((file for start, file in _FILES if each["title"].startswith(start)), _OTHERS)
        texts.setdefault(name, []).append(f"== {each['title']}\n{each['text']}\n")
    if test.outcome == "crashed" or not test.evidence:
        texts.setdefault("dmesg.txt", []).append(f"== end of the console\n{test.message}\n")
    for name, parts in texts.items():
        (directory / name).write_text(clean("\n".join(parts)))
    for capture in test.captures:
        (directory / f"capture-{capture['host']}.pcap").write_bytes(base64.b64decode(capture["base64"]))
    own = copy.copy(kernel)
    own.tests = [test]
    write_json(directory / "results.json", {**run, "arguments": []}, [own])
    (directory / "results.json").write_text(clean((directory / "results.json").read_text()))


def clean(text: str) -> str:
    """Without the path of the project's directory."""
    return re.sub(re.escape(str(PROJECT)) + "/?", "", text)
