"""A folder must hold nothing of the machine that made it: names, directories and addresses."""
import getpass
import io
import ipaddress
import json
import os
import re
import shutil
import socket
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.project import PROJECT

_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
# RFC 5737 and RFC 3849: the suite's own hosts have them, so they identify no machine.
_DOCUMENTATION = tuple(map(ipaddress.ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")))
_SHORTEST = 3                               # letters of a name that identifies anything


@dataclass(frozen=True)
class Private:
    """What must not be found: words (names, MAC and IP addresses), matched as whole words, and directories."""

    words: frozenset[str]
    places: frozenset[str]

    def found_in(self, directory: Path) -> list[str]:
        """One line per finding in the files below the directory, and inside archives."""
        places = b"|".join(re.escape(place.encode()) for place in sorted(self.places, key=len, reverse=True)) or b"(?!)"
        # A colon continues an address of this form, and ends any other word.
        words = b"|".join(re.escape(word.encode()) + (b"(?!:)" if ":" in word else b"") for word in sorted(self.words)) or b"(?!)"
        pattern = re.compile(rb"(?:%s)(?![\w-])|(?<![\w.:-])(?:%s)(?![\w-])" % (places, words), re.IGNORECASE)
        files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
        contents = [each for path in files for each in _contents(str(path.relative_to(directory)), path.read_bytes())]
        lines = [f"{name}: {match.decode(errors='replace')}" for name, data in contents for match in sorted(set(pattern.findall(data)))]
        return lines + [f"{name}: {mac} in binary" for name, data in contents
                        for mac in sorted(filter(_MAC.fullmatch, self.words)) if bytes.fromhex(mac.replace(":", "")) in data]


def _contents(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    yield name, data
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for inner in archive.namelist():
                yield f"{name}: {inner}", archive.read(inner)


def of_this_machine() -> Private:
    """Call it before the process enters private namespaces, which have other interfaces.

    A name that the suite itself uses (root, client, vm) identifies nobody and is left out.
    """
    places = {str(PROJECT), os.path.realpath(PROJECT)} | {home for home in (os.path.expanduser("~"),) if home not in ("/", "/root")}
    return Private(frozenset(own_names() | _addresses()), frozenset(places))


def own_names() -> set[str]:
    """The names of this machine and its user, without those that the suite itself uses."""
    names = {socket.gethostname(), socket.gethostname().partition(".")[0], socket.getfqdn(), _user(),
             os.environ.get("SUDO_USER", ""), os.environ.get("LOGNAME", "")}
    common = _words_of_the_suite()
    return {name for name in names if len(name) >= _SHORTEST and name.lower() not in common}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):             # a number without a name
        return ""


def _words_of_the_suite() -> set[str]:
    common = {"localhost", "localhost.localdomain", "root"}
    for place in ("netns", "fixtures", "tests", "reproduce", "report"):
        for path in (PROJECT / place).rglob("*.py"):
            common |= set(re.findall(r"[a-z0-9._-]+", path.read_text(errors="replace").lower()))
    return common


def _addresses() -> set[str]:
    """MAC and IP addresses of the interfaces, without loopback and documentation addresses."""
    found = set()
    if ip := shutil.which("ip", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
        for link in json.loads(subprocess.run([ip, "-j", "address"], capture_output=True, text=True).stdout or "[]"):
            if link.get("link_type") == "ether":
                found.add(link["address"])
            found |= {each["local"] for each in link["addr_info"] if not _common(ipaddress.ip_address(each["local"]))}
    return found


def _common(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_loopback or any(address in network for network in _DOCUMENTATION if network.version == address.version)
