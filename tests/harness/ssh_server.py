"""sshd for tests: Debian's, unpacked and not installed, in a network of the test's own.

Each server is a machine as far as ssh and processes go: it has its own processes, which end with it, and its own temporary directory.
"""
import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from kernels.cache import Cache
from tests.harness.sessions import eventually

PACKAGES = ["openssh-server", "libwrap0"]       # the second only sshd needs
SETUP = """\
mount -t tmpfs tmpfs /run && mkdir /run/sshd
{ cat /etc/passwd; echo sshd:x:100:65534::/run/sshd:/usr/sbin/nologin; } > /run/passwd && mount --bind /run/passwd /etc/passwd
exec $BEFORE env -i LD_LIBRARY_PATH="$LIBRARIES" "$SSHD" -D -e -f "$CONFIG"
"""
CONFIG = """\
Port {port}
ListenAddress {listen}
HostKey {keys}/host_key
AuthorizedKeysFile {keys}/key.pub
UsePAM no
StrictModes no
PidFile none
SetEnv {environment}
"""
CLIENT = """\
Host refused
  HostName 127.0.0.1
  Port {first}
  IdentityFile {keys}/host_key
Host * !refused
  IdentityFile {keys}/key
Host *
  User root
  IdentitiesOnly yes
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  LogLevel ERROR
"""


def unpacked_sshd() -> Path:
    """The directory with Debian's sshd, from the cache or fetched by apt."""
    def fetch(target: Path) -> None:
        subprocess.run(["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *PACKAGES], cwd=target, check=True,
                       capture_output=True)
        for package in target.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, target / "root"], check=True)

    with Cache() as cache:
        return cache.build("images", "-".join(["sshd", *PACKAGES]), fetch, {"group": "sshd"}) / "root"


def sshd_program() -> tuple[str, str]:
    """The path of sshd, and its LD_LIBRARY_PATH."""
    root = unpacked_sshd()
    return str(root / "usr/sbin/sshd"), f"{root}/lib/x86_64-linux-gnu:{root}/usr/lib/x86_64-linux-gnu"


def write_keys(keys: Path, first: int) -> Path:
    """Keys of server and client, and the client's ssh_config(5), which is returned.  The server at port `first` refuses "refused"."""
    for key in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / key], check=True)
    config = keys / "client"
    config.write_text(CLIENT.format(keys=keys, first=first))
    return config


def write_server(place: Path, keys: Path, port: int, environment: str, listen: str = "127.0.0.1") -> Path:
    """An sshd_config(5)."""
    config = place / "server"
    config.write_text(CONFIG.format(keys=keys, port=port, environment=environment, listen=listen))
    return config


class Server:
    """`name` is what --ssh is given."""

    def __init__(self, place: Path, keys: Path, network: int, port: int, cache: Path, before: str = ""):
        self.place, self.name, self.temporary = place, f"root@127.0.0.1:{port}", place / "tmp"
        self.temporary.mkdir(parents=True)
        config = write_server(place, keys, port, f"TMPDIR={self.temporary} KDRIFT_CACHE={cache}")
        sshd, libraries = sshd_program()
        environment = {**os.environ, "SSHD": sshd, "CONFIG": str(config), "BEFORE": before, "LIBRARIES": libraries}
        with open(place / "log", "wb") as log:
            self.process = subprocess.Popen(
                [*within(network), "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", SETUP],
                env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
        eventually(lambda: "listening" in self.log, 20, lambda: self.log, lambda: self.process.poll() is not None)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def log(self) -> str:
        return (self.place / "log").read_text()

    def end(self) -> None:
        """As if its power were cut: every process of its own ends with it."""
        self.process.kill()
        self.process.wait()

    def leftovers(self) -> list[str]:
        """What a session has left in its temporary directory."""
        return sorted(os.listdir(self.temporary))


def within(network: int) -> list[str]:
    """What runs a command in the network of a process."""
    return ["nsenter", f"--net=/proc/{network}/ns/net"]


@contextlib.contextmanager
def network() -> Iterator[int]:
    """A network with nothing but a loopback interface; yields the process that holds it."""
    holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "ip link set lo up && echo && exec sleep infinity"], stdout=subprocess.PIPE)
    holder.stdout.readline()
    try:
        yield holder.pid
    finally:
        holder.kill()
        holder.wait()
