"""A host of a topology: its sockets, commands, sysctls, counters and packets."""

# The method Host.socket() hides the module in annotations of this class.
from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from netns import lacking
from netns.errors import CommandError, HostLacks
from netns.hosts import nftables
from netns.hosts.hostsocket import HostSocket
from netns.hosts.interface import Interface
from netns.hosts.namespace import NetworkNamespace
from netns.netlink import rtnl
from netns.observe.capture import Capture, PacketRing
from netns.observe.counters import Counters
from netns.wait import eventually


class Host:
    """A network namespace with a role. `interfaces` are by the role at the other end."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.interfaces: dict[str, Interface] = {}
        self.ring: PacketRing | None = None
        self._stack = ExitStack()
        self.namespace = self._stack.enter_context(NetworkNamespace())
        self._sockets: list[socket.socket] = []
        self._stack.callback(self._abort_sockets)

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.__exit__(*exception)

    def __repr__(self) -> str:
        return f"<{self.role}>"

    def entered(self):
        """A context in which this thread is on the host; see NetworkNamespace.entered()."""
        return self.namespace.entered()

    def socket(self, family: int, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> HostSocket:
        """A socket of this host, closed with it. Raises OSError, which is MissingFeature too where the kernel has no such sockets."""
        what = lacking.netlink(protocol) if family == socket.AF_NETLINK else f"sockets of {family!s}, type {kind}, protocol {protocol}"
        with self.entered(), lacking.in_request(what):
            made = HostSocket(family, kind, protocol)
        made.role = self.role
        return self.adopt(made)

    def adopt(self, made: socket.socket) -> socket.socket:
        """Close this socket with the host; for one that accept() returned."""
        self._sockets.append(made)
        return made

    def _abort_sockets(self) -> None:
        for each in self._sockets:
            if each.fileno() >= 0 and each.type == socket.SOCK_STREAM:
                # An orderly close would retransmit its FIN for minutes to a peer that is gone, and keep the namespace.
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            each.close()

    def run(self, command: Sequence[str], stdin: str = "", timeout: float = 30) -> str:
        """The standard output of a command run on this host; `timeout` in seconds. nft runs in this process, and to its end.

        Raises CommandError with its standard error if its status is not 0, which is MissingFeature too where the kernel lacks what
        the command asks for; HostLacks if it is not installed.
        """
        library = nftables.library() if command[0] == "nft" else None
        # A child inherits the namespace of the thread that starts it: no hook between fork and exec, so Python can
        # use vfork, four times cheaper.
        try:
            with self.entered():
                done = nftables.run(library, command, stdin) if library else \
                    subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout)
        except (FileNotFoundError, PermissionError) as error:  # the latter for a PATH that names a closed directory
            raise HostLacks(f"{command[0]} is not installed") from error
        if done.returncode != 0:
            failure = f"{self.role}: {' '.join(command)}: status {done.returncode}: {done.stderr.strip()}"
            if feature := lacking.in_command(command, stdin, done.stderr):
                raise lacking.UnsupportedCommand(f"the kernel has no {feature}: {failure}")
            raise CommandError(failure)
        return done.stdout

    def failure(self, command: Sequence[str]) -> str:
        """Why a command fails here, or nothing where it does not; else as run()."""
        try:
            self.run(command)
        except CommandError as error:
            return str(error)
        return ""

    def sysctl(self, name: str, value: object = None) -> str:
        """The sysctl's value, after it was set to `value` if one is given. Raises OSError, lacking.MissingSysctl where there is none."""
        with self.entered():
            path = Path("/proc/sys", name.replace(".", "/"))
            try:
                if value is not None:
                    path.write_text(str(value))
                return path.read_text().strip()
            except FileNotFoundError as error:
                raise lacking.MissingSysctl(name, error) from error

    def pin(self, values: Mapping[str, object]) -> None:
        """Set several sysctls: whatever a result depends on, since a new namespace can inherit them. Raises as sysctl() does."""
        with self.entered():
            for name, value in values.items():
                # Without file objects, which take longer than the kernel: each test sets dozens of them.
                try:
                    file = os.open(f"/proc/sys/{name.replace('.', '/')}", os.O_WRONLY)
                except FileNotFoundError as error:
                    raise lacking.MissingSysctl(name, error) from error
                try:
                    os.write(file, str(value).encode())
                finally:
                    os.close(file)

    def counters(self) -> Counters:
        """The counters of this host now."""
        with self.entered():
            return Counters.read()

    def counter(self, name: str) -> int:
        """One of these counters now. Raises MissingFeature for one that the kernel does not have."""
        with self.entered():
            return Counters.read_one(name)

    def reaches(self, name: str, expected: object, within: float, since: int = 0) -> int:
        """Wait until this counter, less `since`, is as `expected`; see eventually(). Raises NotMet, MissingFeature."""
        return eventually(f"{name} of {self.role}", lambda: self.counter(name) - since, expected, within)

    def address(self, family: int, peer: str | None = None) -> str:
        """The address on the link to `peer`, or on the first link."""
        interface = self.interfaces[peer] if peer else next(iter(self.interfaces.values()))
        return interface.address(family)

    def hold(self, address: str) -> None:
        """The address is the host's own as well, on no link. Raises OSError."""
        rtnl.request(self.namespace, [rtnl.address(rtnl.LOOPBACK, ipaddress.ip_interface(address))])

    @contextmanager
    def link_down(self, peer: str) -> Iterator[None]:
        """The interface of the link to `peer` is down for the time of the block; the other end loses its carrier."""
        index = self.interfaces[peer].index
        rtnl.request(self.namespace, [rtnl.link_state(index, up=False)])
        try:
            yield
        finally:
            rtnl.request(self.namespace, [rtnl.link_state(index, up=True)])

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record every packet of every interface for the time of the block; see capture()."""
        with PacketRing(self.role, self.namespace) as self.ring:
            try:
                yield
            finally:
                self.ring = None

    @contextmanager
    def capture(self, protocol: str | None = None) -> Iterator[Capture]:
        """The packets that this host sends and receives within the block.

        `protocol` keeps only "tcp", "udp", "esp", "icmp" or "icmpv6". The host must be recording.
        """
        with self.ring.span(protocol) as packets:
            yield packets
