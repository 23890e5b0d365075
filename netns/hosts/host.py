"""A host of a topology: its sockets, commands, sysctls, counters and packets."""

# Host.socket() shadows the module in annotations of this class.
from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from netns import unsupported
from netns.errors import CommandError, MissingOnHost, NotRecording
from netns.hosts import nftables
from netns.hosts.hostsocket import HostSocket
from netns.hosts.interface import Interface
from netns.hosts.namespace import NetworkNamespace
from netns.netlink import rtnl
from netns.observe import procnet
from netns.observe.capture import Capture, PacketRing
from netns.observe.counters import Counters
from netns.packets.packet import PROTOCOLS
from netns.wait import eventually


class Host:
    """A network namespace with a role. `interfaces` is keyed by the role at the other end."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.interfaces: dict[str, Interface] = {}
        self.ring: PacketRing | None = None
        self._stack = ExitStack()
        self.namespace = self._stack.enter_context(NetworkNamespace())
        self.has_flowtable = False          # whether nft() has given it one: what such a table forwards is in no counter of IP
        self._sockets: list[socket.socket] = []
        self._opened: set[tuple[int, int]] = set()
        self._stack.callback(self.abort_sockets)

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.__exit__(*exception)

    def __repr__(self) -> str:
        return f"<{self.role}>"

    def entered(self):
        """A context in which this thread is in the host's namespace; see NetworkNamespace.entered()."""
        return self.namespace.entered()

    def socket(self, family: int, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> HostSocket:
        """A socket of this host, closed with it. Raises OSError, which is also a MissingFeature if the kernel has no such sockets."""
        what = unsupported.netlink(protocol) if family == socket.AF_NETLINK else f"sockets of {family!s}, type {kind}, protocol {protocol}"
        with self.entered(), unsupported.in_request(what):
            made = HostSocket(family, kind, protocol)
        made.role = self.role
        return self.adopt(made)

    def has_opened(self, family: int, kind: int) -> bool:
        """Whether such a socket was adopted; it may be closed again."""
        return (family, kind) in self._opened

    def adopt(self, made: socket.socket) -> socket.socket:
        """Close this socket with the host; for sockets from accept()."""
        self._sockets.append(made)
        self._opened.add((made.family, made.type))
        return made

    def abort_sockets(self) -> None:
        """Close all sockets; a TCP connection is reset."""
        for each in self._sockets:
            if each.fileno() >= 0 and each.type == socket.SOCK_STREAM:
                # An orderly close would retransmit its FIN to a vanished peer for minutes and keep the namespace alive.
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            each.close()

    def run(self, command: Sequence[str], stdin: str = "", timeout: float = 30) -> str:
        """Run a command on this host and return its standard output; `timeout` in seconds. For rules of nftables see nft().

        Raises CommandError with its standard error for a nonzero status, which is also a MissingFeature if the kernel lacks
        the feature; MissingOnHost if it is not installed; subprocess.TimeoutExpired.
        """
        return self._run(command, stdin, timeout)

    def nft(self, text: str, json: bool = False) -> str:
        """Run nft commands, one a line, on this host: all of them or none. Returns their output, with `json` as JSON.

        They run in this process where libnftables is to be had, in nft(8) elsewhere. Raises like run(), except that the library
        has no timeout.
        """
        text = text.strip()
        self.has_flowtable |= "flowtable" in text
        command, stdin = (["nft", "-f", "-"], text + "\n") if "\n" in text else (["nft", text], "")
        if json:
            command.insert(1, "-j")
        library = nftables.library()
        if library is None:
            return self._run(command, stdin, timeout=30)
        with self.entered():
            done = nftables.run(library, text + "\n", json)
        return self._succeeded(command, stdin, *done)

    def _run(self, command: Sequence[str], stdin: str, timeout: float) -> str:
        # A child inherits the namespace of the thread that starts it. Without a hook between fork and exec, Python can
        # use vfork, four times cheaper.
        try:
            with self.entered():
                done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout)
        except (FileNotFoundError, PermissionError) as error:  # the latter if PATH names an inaccessible directory
            raise MissingOnHost(f"{command[0]} is not installed") from error
        return self._succeeded(command, stdin, done.returncode, done.stdout, done.stderr)

    def _succeeded(self, command: Sequence[str], stdin: str, status: int, output: str, said: str) -> str:
        """The output of a command that has ended; its standard error is what it `said`. Raises like run()."""
        if status == 0:
            return output
        failure = f"{self.role}: {' '.join(command)}: status {status}: {said.strip()}"
        if feature := unsupported.in_command(command, stdin, said):
            raise unsupported.UnsupportedCommand(f"the kernel has no {feature}: {failure}")
        raise CommandError(failure)

    def failure(self, command: Sequence[str]) -> str:
        """The error text of a command that fails, "" if it succeeds; otherwise like run()."""
        try:
            self.run(command)
        except CommandError as error:
            return str(error)
        return ""

    def sysctl(self, name: str, value: object = None) -> str:
        """The sysctl's value, first set to `value` if given. Raises OSError; unsupported.MissingSysctl if the kernel does not have it."""
        with self.entered():
            path = Path("/proc/sys", name.replace(".", "/"))
            try:
                if value is not None:
                    path.write_text(str(value))
                return path.read_text().strip()
            except FileNotFoundError as error:
                raise unsupported.MissingSysctl(name, error) from error

    def pin(self, values: Mapping[str, object]) -> None:
        """Set the sysctls that a result depends on, since a new namespace can inherit them. Raises like sysctl()."""
        with self.entered():
            for name, value in values.items():
                # No file objects: they take longer than the kernel, and each test sets dozens of sysctls.
                try:
                    file = os.open(f"/proc/sys/{name.replace('.', '/')}", os.O_WRONLY)
                except FileNotFoundError as error:
                    raise unsupported.MissingSysctl(name, error) from error
                try:
                    os.write(file, str(value).encode())
                finally:
                    os.close(file)

    def counters(self) -> Counters:
        """All counters of this host now."""
        with self.entered():
            return Counters.read()

    def counter(self, name: str) -> int:
        """One counter now. Raises MissingFeature if the kernel does not have it."""
        with self.entered():
            return Counters.read_one(name)

    def await_counter(self, name: str, expected: object, within: float, since: int = 0) -> int:
        """Wait until this counter, minus `since`, is as `expected`; see eventually(). Raises ExpectationFailed, MissingFeature."""
        return eventually(f"{name} of {self.role}", lambda: self.counter(name) - since, expected, within=within)

    def address(self, family: int, peer: str | None = None) -> str:
        """The host's address on the link to `peer`, by default on its first link."""
        interface = self.interfaces[peer] if peer else next(iter(self.interfaces.values()))
        return interface.address(family)

    def add_address(self, address: str, peer: str = "") -> None:
        """Add an address, with or without a prefix length, to the interface to `peer`, else to loopback; from then on packets to it
        reach the host. Raises OSError, ExpectationFailed."""
        index = self.interfaces[peer].index if peer else rtnl.LOOPBACK
        rtnl.request(self.namespace, [rtnl.address(index, ipaddress.ip_interface(address))])
        self.await_address(address)

    def await_address(self, address: str) -> None:
        """Wait until packets to an added address reach the host: see procnet.local_routes(). Raises ExpectationFailed after 10 s."""
        wanted = ipaddress.ip_interface(address).ip
        if wanted.version == 4:
            return

        def is_local() -> bool:
            with self.entered():
                return wanted.packed.hex().encode() in dict(procnet.local_routes())

        eventually(f"local route for {wanted} on {self.role}", is_local, within=10)

    @contextmanager
    def link_down(self, peer: str) -> Iterator[None]:
        """Within the block the interface to `peer` is down; the other end loses its carrier."""
        index = self.interfaces[peer].index
        rtnl.request(self.namespace, [rtnl.link_state(index, up=False)])
        try:
            yield
        finally:
            rtnl.request(self.namespace, [rtnl.link_state(index, up=True)])

    @contextmanager
    def recording(self, size: int = PacketRing.SIZE) -> Iterator[None]:
        """Record every packet on every interface within the block; see capture(). `size` packets are held until they are drained."""
        with PacketRing(self.role, self.namespace, size) as self.ring:
            try:
                yield
            finally:
                self.ring = None

    @contextmanager
    def capture(self, protocol: str | None = None) -> Iterator[Capture]:
        """The packets that this host sends and receives within the block, of one of packet.PROTOCOLS or all.

        Raises ValueError for another protocol, NotRecording outside recording().
        """
        if protocol not in (None, *PROTOCOLS):
            raise ValueError(f"capture(): unknown protocol {protocol!r}; use {', '.join(PROTOCOLS)}, or None for all packets")
        if self.ring is None:
            raise NotRecording(f"{self.role} does not record packets: use the fixture net, build(topology, capture=True) or "
                               "Host.recording()")
        with self.ring.span(protocol) as packets:
            yield packets
