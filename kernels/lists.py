"""What the package lists of the Debian archive say of its kernels."""

import re
import time
from pathlib import Path

from kernels.apt import Apt, is_absence
from kernels.packages import NAME, Index, Package
from kernels.sources import LARGE

NEEDED = {"Version", "Size", "SHA256", "Filename"}
STANZA = re.compile(rb"(?m)^Package: linux-(?:image|binary|modules)-\d.*\n(?:.+\n)*")


def read_index(apt: Apt, failed: dict[str, str]) -> Index:
    """Read the lists that apt has just verified, of large suites the installer's; `failed` maps missing suites to reasons."""
    packages = [package for suite in apt.sources if suite not in LARGE for package in read_packages(apt, suite)]
    there = [suite for suite in LARGE if suite in apt.sources and not is_absence(failed.get(suite, ""))]
    unread = {suite: _installer_kernels(apt, suite) for suite in there}
    return Index(packages, time.time(), failed, apt.origin, unread)


def read_packages(apt: Apt, suite: str) -> list[Package]:
    """The kernel packages in the list of one suite; none if it was not fetched."""
    packages = []
    for match in STANZA.finditer(_text(apt, apt.list_of(suite))):
        fields = dict(re.findall(r"(?m)^([\w-]+): (.*)$", match[0].decode(errors="replace")))
        if NAME.fullmatch(fields.get("Package", "")) and fields.keys() >= NEEDED and fields["Size"].isdecimal():
            depends = tuple(re.findall(r"\blinux-(?:image|binary|modules)-[^\s,|(]+", fields.get("Depends", "")))
            packages.append(Package(fields["Package"], fields["Version"], suite, int(fields["Size"]), fields["SHA256"], depends,
                                    fields["Filename"]))
    return packages


def _installer_kernels(apt: Apt, suite: str) -> list[tuple[str, str]]:
    """Release and version of the kernels whose modules the installer has, which are all of the suite; none if it has no list.

    The modules are built from the same source as the suite's kernel packages.
    """
    found = set()
    for stanza in _text(apt, apt.installer_list_of(suite)).decode(errors="replace").split("\n\n"):
        fields = dict(re.findall(r"(?m)^(Kernel-Version|Version): (.*)$", stanza))
        if fields.keys() >= {"Kernel-Version", "Version"}:
            found.add((fields["Kernel-Version"], fields["Version"]))
    return sorted(found)


def _text(apt: Apt, path: Path | None) -> bytes:
    return apt.read_list(path) if path else b""
