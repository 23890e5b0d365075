"""report.md: the text for a bug tracker or a mailing list."""
import re
from collections.abc import Sequence
from pathlib import Path

from kernels.extract import Kernel
from report.known import Issue, candidates, load, version_key
from report.results import KernelResult, TestResult
from reproduce.collect import Manifest
from reproduce.empty import Visit
from reproduce.evidence import clean

_ALWAYS = ("HZ", "PREEMPT", "PREEMPT_DYNAMIC", "PREEMPT_VOLUNTARY", "SMP")
# Options that matter if the test's id contains the word.
_OPTIONS = {
    "ipvs": ("IP_VS", "IP_VS_PROTO_TCP", "NET_IPIP", "IPV6_TUNNEL"), "tunnel": ("NET_IPIP", "IPV6_TUNNEL"),
    "larval": ("XFRM_USER", "INET_ESP", "INET6_ESP"), "xfrm": ("XFRM_USER", "INET_ESP", "INET6_ESP"), "vrf": ("NET_VRF",),
    "esp": ("XFRM_USER", "INET_ESP", "INET6_ESP"), "audit": ("AUDIT", "AUDITSYSCALL"), "firewall": ("NF_TABLES", "IP_NF_IPTABLES"),
    "conntrack": ("NF_CONNTRACK", "NF_CONNTRACK_TIMEOUT"), "multipath": ("IP_ROUTE_MULTIPATH",), "tun": ("TUN",), "qdisc": ("NET_SCH_TBF",),
    "timewait": ("SYN_COOKIES",), "tcp": ("SYN_COOKIES", "TCP_CONG_CUBIC"), "tracing": ("BPF_SYSCALL", "KPROBES", "DEBUG_INFO_BTF"),
}


def report(test: TestResult, kernel: KernelResult, source: Kernel | None, others: Sequence[KernelResult], manifest: Manifest | None,
           visits: dict[str, Visit | str], why_no_case: str = "", replayed: str = "", how: str = "") -> str:
    """`visits` are the runs of repro.pyz on empty machines by the kernel's role (failing, good), or why there was none.

    `how` to reproduce it, where it is no test.
    """
    version = kernel.version or kernel.release
    name = test.id.rpartition("::")[2]
    blocks = [f"# Fails on {kernel.package or 'Linux'} {version}: {_sentence(name)}"]
    blocks += ["## Promise", test.promise or "(the test has no docstring)", f"Test: `{test.id}`"]
    blocks += ["## Failure", _fenced(clean(_seen(test)))]
    blocks += ["## Kernel", "\n".join(_kernel(kernel, source, test.id))]
    blocks += ["## First bad and last good", "\n".join(_history(test, version, others))]
    blocks += ["## Candidate fixes", "\n".join(_fixes(test, version)) or "None known."]
    blocks += ["## How to reproduce", how or _how(test.id, manifest, why_no_case), _verified(visits), replayed]
    for role, visit in visits.items():
        if isinstance(visit, Visit):
            blocks += [f"## Transcript on the {role} kernel", _fenced(clean(visit.transcript))]
    return "\n\n".join(filter(None, blocks)) + "\n"


def verdict_line(visits: dict[str, Visit | str]) -> str:
    """In a few words, for the terminal."""
    return "; ".join(f"{role}: {visit.verdict or 'no verdict'}" if isinstance(visit, Visit) else f"{role}: {visit}"
                     for role, visit in visits.items())


def _sentence(name: str) -> str:
    words = name.partition("[")[0].removeprefix("test_").replace("_", " ")
    return words[0].upper() + words[1:] + (f" [{name.partition('[')[2]}" if "[" in name else "")


def _seen(test: TestResult) -> str:
    lines = [line for line in test.traceback.splitlines() if line.startswith(("E  ", ">  "))]
    return "\n".join(lines) or test.message


def _kernel(kernel: KernelResult, source: Kernel | None, test: str) -> list[str]:
    lines = [f"- release: {kernel.release}", f"- package: {kernel.package or 'none'} {kernel.version or ''}".rstrip(),
             f"- machine: QEMU {kernel.qemu}, {kernel.accel}, {kernel.clock} clock" if kernel.qemu
             else "- machine: the one that ran the suite"]
    if options := _config(source, test):
        lines.append(f"- options: {', '.join(options)}")
    return lines


def _config(source: Kernel | None, test: str) -> list[str]:
    config = source.vmlinuz.parent / f"config-{source.release}" if source else Path("/nonexistent")
    if not config.exists():
        return []
    wanted = {*_ALWAYS, *(option for word, options in _OPTIONS.items() if word in test for option in options)}
    found = dict(re.findall(r"(?m)^CONFIG_(\w+)=(\S+)", config.read_text()))
    return [f"CONFIG_{name}={found[name]}" if name in found else f"CONFIG_{name} is not set" for name in sorted(wanted)]


def _history(test: TestResult, version: str, others: Sequence[KernelResult]) -> list[str]:
    lines = []
    if issue := next((each for each in load() if each.id == test.issue), None):
        span = next(each for each in issue.affected if each.holds(version))
        lines.append(f"- known_issues.toml: bad from {span.first or 'the first kernel'}"
                     + (f", good from {span.fixed}" if span.fixed else ", no fixed version known"))
    ran = [(each.version or each.release, found.outcome) for each in others
           if (found := each.by_id().get(test.id)) and found.outcome != "skipped"]
    lines += [f"- this run: {outcome} on {each}" for each, outcome in sorted(ran, key=lambda pair: version_key(pair[0]))]
    return lines or ["- unknown"]


def _fixes(test: TestResult, version: str) -> list[str]:
    issue: Issue | None = next((each for each in load() if each.id == test.issue), None)
    lines = [f"- {issue}, {issue.note}"] if issue else []
    if test.listed:
        lines.append(f"- {test.listed} is listed for this test and kernel, but its signature differs from this failure's")
    return lines + [f"- possibly: {each}" for each in (test.candidates or candidates(test.id, version))]


def _how(test: str, manifest: Manifest | None, why: str) -> str:
    if manifest is None:
        return f"No standalone case: {why}. With kdrift: `./kdrift pytest --kernel VERSION '{test}'`"
    packages = ["python3", "iproute2", *manifest.packages]
    return _fenced(f"apt install {' '.join(packages)}\nsudo python3 repro.pyz{' --disposable' if disposable(manifest) else ''}\n"
                   "echo $?          # 1: REPRODUCED, 0: NOT REPRODUCED, 2: CANNOT RUN, with the reason")


def disposable(manifest: Manifest) -> bool:
    """Whether the case changes the whole machine."""
    return not manifest.own_network or bool({"larval_drop", "audit"} & set(manifest.order))


def _verified(visits: dict[str, Visit | str]) -> str:
    lines = []
    for role, wanted in (("failing", "REPRODUCED"), ("good", "NOT REPRODUCED")):
        visit = visits.get(role)
        if visit is None:
            continue
        if isinstance(visit, str):
            lines.append(f"**Not verified on the {role} kernel: {visit}**")
        elif visit.verdict == wanted:
            lines.append(f"Verified: an empty machine with the {role} kernel ({visit.suite}'s python3 and iproute2) prints "
                         f"{visit.verdict}.")
        else:
            lines.append(f"**Not confirmed: on the {role} kernel an empty machine prints {visit.verdict or 'no verdict'} "
                         f"instead of {wanted}.**")
    return "\n".join(lines)


def _fenced(text: str) -> str:
    return f"```\n{text.rstrip()}\n```"
