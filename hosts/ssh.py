"""A machine that ssh reaches: its name, the command line, and ssh's complaint when it fails."""
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass

OPTIONS = ["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ClearAllForwardings=yes",
           # A connection that is silent for a minute is lost.
           "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=6"]
NAME = re.compile(r"(?P<place>(?:[\w.-]+@)?(?:[A-Za-z0-9][\w.-]*|\[[0-9A-Fa-f:.]+(?:%\w+)?\]))(?::(?P<port>\d{1,5}))?")
FAILED = 255                                # ssh's own exit status (ssh(1)); others are the command's
PROBE = "uname -m; uname -r; uname -v; nproc; PATH=$PATH:/usr/local/bin:/usr/bin command -v qemu-system-x86_64 || echo"


class HostError(Exception):
    """A machine cannot be reached or used; the message says why in one line."""


@dataclass(frozen=True)
class Host:
    """`name` is what the user typed, `place` ssh's destination, `config` an ssh_config(5) file instead of the user's own."""

    name: str
    place: str
    port: str | None = None
    config: str | None = None

    @classmethod
    def parse(cls, text: str, config: str | None = None) -> "Host":
        """Parse `[user@]host[:port]`, an IPv6 address in brackets.  Raises ValueError."""
        match = NAME.fullmatch(text)
        if not match or match["port"] and not 0 < int(match["port"]) < 65536:
            raise ValueError(f"invalid host {text!r}: expected [user@]host[:port]")
        return cls(text, match["place"].replace("[", "").replace("]", ""), match["port"], config)

    def command(self, remote: str) -> list[str]:
        """The command that runs `remote` in the machine's shell.  Raises HostError if ssh is not installed."""
        ssh = shutil.which("ssh")
        if ssh is None:
            raise HostError("ssh is not installed (Debian package: openssh-client)")
        words = [ssh, *(["-F", self.config] if self.config else []), *OPTIONS, *(["-p", self.port] if self.port else [])]
        return [*words, "--", self.place, remote]


@dataclass(frozen=True)
class Facts:
    """Facts about a machine: uname(2), its number of processors, the path of its QEMU or ""."""

    machine: str
    release: str
    build: str
    processors: int
    qemu: str


def in_a_shell(script: str, as_root: bool = False) -> str:
    """A command for any login shell; `as_root` works where sudo asks for no password."""
    sudo = '$(test "$(id -u)" = 0 || ! sudo -n true || echo sudo -n) ' if as_root else ""
    return f"exec {sudo}sh -c {shlex.quote(script)}"


def probe(host: Host) -> Facts:
    """Ask a machine for its facts.  Raises HostError if it cannot be reached or is not x86-64 Linux."""
    done = subprocess.run(host.command(in_a_shell(PROBE)), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    lines = done.stdout.splitlines()
    if done.returncode == FAILED:
        raise HostError(complaint(done.stderr.splitlines()))
    if len(lines) != 5 or not lines[3].isdigit():
        raise HostError(f"unexpected output from its shell: {' '.join([*lines, *done.stderr.split()])[:200]}")
    if lines[0] != "x86_64":
        raise HostError(f"unsupported architecture {lines[0]}: the Python that the suite copies there is for x86_64")
    return Facts(lines[0], lines[1], lines[2], int(lines[3]), lines[4])


def complaint(lines: list[str]) -> str:
    """The line in which ssh says why it ended."""
    found = [line.strip() for line in lines if line.strip() and not line.startswith(("Warning: ", "** "))]
    return found[-1] if found else "ssh exited without a message"
