"""Checks a kernel in the guest before its first test: features that every test needs, and those whose tests are skipped.

Packed beside process 1, which imports it before the project's sources are there.
"""
import ctypes
import os
import re
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

CLONE_NEWNET = 0x40000000
# What every topology needs: feature, module, config option.
ESSENTIAL = [("network namespaces", "", "NET_NS"), ("IPv6", "ipv6", "IPV6"), ("packet sockets", "af_packet", "PACKET"),
             ("veth", "veth", "VETH")]
# What tests are skipped for: module, a function that exists if it is built in, config option.
OPTIONAL = {"nf_tables": ("nft_do_chain", "NF_TABLES"), "ip_tables": ("ipt_do_table", "IP_NF_IPTABLES"),
            "nf_conntrack": ("nf_conntrack_in", "NF_CONNTRACK"), "ip_vs": ("ip_vs_conn_new", "IP_VS"),
            "xfrm_user": ("xfrm_send_state_notify", "XFRM_USER"), "tun": ("tun_get_socket", "TUN"),
            "inet_diag": ("inet_diag_dump_icsk", "INET_DIAG")}
libc = ctypes.CDLL(None, use_errno=True)


class Unfit(OSError):
    """No test can run on this kernel; one line says what is missing."""


def modules() -> Path:
    return Path("/lib/modules", os.uname().release)


def listed(name: str) -> dict[str, str]:
    """The modules in modules.dep or modules.builtin, with their paths below modules()."""
    try:
        lines = (modules() / name).read_text().splitlines()
    except FileNotFoundError:
        return {}
    paths = [line.partition(":")[0] for line in lines]
    return {os.path.basename(path).partition(".")[0].replace("-", "_"): path for path in paths}


def unfit(what: str, module: str, option: str) -> Unfit:
    """The error for a missing feature: the kernel does not have it, or rejects its module."""
    if path := listed("modules.dep").get(module):
        if (release := vermagic_release(modules() / path)) != modules().name:
            return Unfit(f"the modules are for {release}, but the kernel is {modules().name}: no test can run")
        return Unfit(f"the kernel cannot load its module {module} ({load_error(module)}): no test can run")
    if modules().is_dir():
        why = "neither built in nor among the modules"
    else:
        why = "no modules were given: append ,modules=DIR"
    return Unfit(f"the kernel has no {what} (CONFIG_{option}): no test can run; {why}")


def vermagic_release(module: Path) -> str:
    """The release in a module's vermagic (Documentation/kbuild/modules.rst)."""
    found = re.search(rb"vermagic=([^\0 ]+)", module.read_bytes())
    return found[1].decode(errors="replace") if found else modules().name


def load_error(module: str) -> str:
    """Why a module cannot be loaded: the kernel's message, or else modprobe's."""
    load = subprocess.run(["/sbin/modprobe", module], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    said = load.stderr.strip().splitlines()
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            with suppress(BrokenPipeError):         # the next record has been overwritten
                text = os.read(log, 8192).decode(errors="replace").partition(";")[2].partition("\n")[0]
                if re.match(rf"(module )?{module}: ", text) or "rejected" in text:
                    said.append(text)
    except BlockingIOError:
        return re.sub(r"\s+", " ", said[-1]) if said else "no reason given"
    finally:
        os.close(log)


def essentials() -> None:
    """Raises Unfit if every test would fail."""
    child = os.fork()
    if child == 0:
        os._exit(first_missing())           # ends its namespace and the device there
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise unfit(*ESSENTIAL[status - 1])


def first_missing() -> int:
    """The number, from 1, of the first missing entry of ESSENTIAL; 0 for none.  Moves the process into a new network namespace."""
    if libc.unshare(CLONE_NEWNET):
        return 1
    for number, (family, kind) in enumerate(((socket.AF_INET6, socket.SOCK_DGRAM), (socket.AF_PACKET, socket.SOCK_RAW)), 2):
        try:
            socket.socket(family, kind).close()
        except OSError:
            return number
    link = ["ip", "link", "add", "look0", "type", "veth", "peer", "name", "look1"]
    return 4 if subprocess.run(link, stdin=subprocess.DEVNULL, capture_output=True).returncode else 0


def lacks() -> list[str]:
    """The names of missing features, whose tests are skipped."""
    there = {**listed("modules.dep"), **listed("modules.builtin")}
    absent = [name for name in OPTIONAL if name not in there]
    if absent and not (modules() / "modules.builtin").exists():
        symbols = re.compile(" (" + "|".join(OPTIONAL[name][0] for name in absent) + r")\b")
        with open("/proc/kallsyms") as names:
            built_in = {found[1] for line in names if (found := symbols.search(line))}
        absent = [name for name in absent if OPTIONAL[name][0] not in built_in]
    return [f"{name} (CONFIG_{OPTIONAL[name][1]})" for name in absent]
