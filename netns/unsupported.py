"""Refusals that mean that the kernel lacks a feature, recognized by what the tools and the kernel say.

Each is a MissingFeature and also the usual CommandError or OSError, for callers that expect one.
"""

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from netns.errors import CommandError, MissingFeature

_NETLINK = {0: "NETLINK_ROUTE", 4: "NETLINK_SOCK_DIAG", 6: "NETLINK_XFRM (CONFIG_XFRM_USER)", 9: "NETLINK_AUDIT (CONFIG_AUDIT)",
            12: "NETLINK_NETFILTER (CONFIG_NETFILTER_NETLINK)"}
_REFUSED = (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.ESOCKTNOSUPPORT)
_NO_NFTABLES = ("cache initialization failed|Unable to initialize Netlink socket|Failed to initialize nft|"
                "Could not fetch rule set generation id")
# By tool: message pattern, and the missing feature. {0} is the pattern's first group, {words} the request.
_SAYINGS = {
    "nft": (
        (_NO_NFTABLES, "nf_tables (CONFIG_NF_TABLES)"),
        # ENOENT also means a missing object; a request that adds its own table refers to no other object.
        (r"(?:Could not process rule|Error): (Operation not supported|Protocol not supported|No such file or directory)",
         "nftables for {words}"),
    ),
    "iptables": (
        (_NO_NFTABLES, "nf_tables (CONFIG_NF_TABLES)"),
        (r"(?:can't|unable to) initialize (?:ip6?tables )?table [`'](\w+)'", "iptables table {0}"),
        (r"Extension (\w+) revision \d+ not supported, missing kernel module", "iptables extension {0}"),
        (r"No chain/target/match by that name|Operation not supported|Protocol not supported", "iptables for {words}"),
    ),
    "ipvsadm": (
        (r"Can't initialize ipvs", "ip_vs (CONFIG_IP_VS)"),
        (r"Scheduler or persistence engine not found", "IPVS scheduler {scheduler}"),
    ),
    "ip": (
        (r"Unknown device type", "devices of type {type}"),
        (r"Operation not supported|Protocol not supported", "support for {words}"),
    ),
    "tc": (
        (r"(?:qdisc|filter|action|classifier) .*(?:unknown|not found)|Operation not supported", "{words}"),
    ),
}


class UnsupportedCommand(MissingFeature, CommandError):
    """A command failed because the kernel lacks the feature that it needs."""


class UnsupportedRequest(MissingFeature, OSError):
    """The kernel refused a socket, a request or a sysctl that it does not support."""

    def __str__(self) -> str:
        return self.strerror


def in_command(command: Sequence[str], stdin: str, said: str) -> str | None:
    """The feature that the kernel lacks, by the standard error that the command `said`; None if it failed for another reason."""
    if "Operation not permitted" in said or "Permission denied" in said:
        return None                         # missing permission
    for pattern, feature in _SAYINGS.get(_tool(command[0]), ()):
        found = re.search(pattern, said)
        if found and not (found.lastindex and "No such file" in found[1] and "add table" not in " ".join((*command, stdin))):
            lines = [line.strip() for line in stdin.splitlines() if line.strip()] or [" ".join(command[1:])]
            words = "; ".join([line for line in lines if line.startswith("add rule")] or lines)
            return feature.format(*found.groups(), words=repr(words), type=_after("type", words), scheduler=_after("-s", words))
    return None


def _after(option: str, words: str) -> str:
    found = re.search(rf"(?:^|\s){option} (\S+)", words)
    return found[1] if found else "?"


def _tool(name: str) -> str:
    return "iptables" if "tables-" in name else name


@contextmanager
def in_request(what: str) -> Iterator[None]:
    """An OSError in the block that means "not supported" becomes UnsupportedRequest, which names `what`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, MissingFeature) or error.errno not in _REFUSED:
            raise
        raise UnsupportedRequest(error.errno, f"the kernel has no {what}: {error.strerror}") from error


def netlink(protocol: int) -> str:
    """The name of a netlink family."""
    return _NETLINK.get(protocol, f"netlink family {protocol}")


class MissingSysctl(UnsupportedRequest, FileNotFoundError):
    """There is no such sysctl."""

    def __new__(cls, name: str, error: FileNotFoundError) -> "MissingSysctl":
        return super().__new__(cls, error.errno, f"the kernel has no sysctl {name}", error.filename)

    def __init__(self, name: str, error: FileNotFoundError) -> None:
        super().__init__(error.errno, f"the kernel has no sysctl {name}", error.filename)
