"""A flow through a firewall, for probes to observe."""

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.machine import own_machine
from netns import Host, eventually
from netns.hosts import firewall

# The number of recvfrom(2) on x86-64, in /proc/PID/syscall of a thread that sleeps in it (proc_pid_syscall(5)).
_RECVFROM = "45"


@dataclass(frozen=True)
class Flow:
    """UDP from client to server; the server's only netfilter hook has counted `filtered()` packets."""

    client: Host
    server: Host
    sender: socket.socket
    receiver: socket.socket
    filtered: Callable[[], int]

    def send(self, count: int) -> None:
        """Send `count` datagrams; each is received before the next one is sent."""
        for _ in range(count):
            self.sender.send(b"x")
            self.receiver.recv(1)

    def receive_at_a_time(self, count: int) -> None:
        """Have `count` threads sleep in recv(2) before the first of `count` datagrams is sent."""
        threads = [threading.Thread(target=self.receiver.recv, args=(1,)) for _ in range(count)]
        for thread in threads:
            thread.start()
        calls = [Path(f"/proc/self/task/{thread.native_id}/syscall") for thread in threads]
        eventually("system calls of the receiving threads", lambda: [call.read_text().split()[0] for call in calls],
                   [_RECVFROM] * count, within=5)
        for _ in threads:
            self.sender.send(b"x")
        for thread in threads:
            thread.join()


@pytest.fixture
def flow(net, family) -> Iterator[Flow]:
    if not own_machine():
        pytest.skip("probes see the whole machine: run it with --kernel")
    client, server = net.nodes("client", "server")
    sender, receiver = (host.socket(family, socket.SOCK_DGRAM) for host in (client, server))
    receiver.bind((server.address(family), 4000))
    sender.connect((server.address(family), 4000))
    with firewall.count(server, family) as rule:
        flow = Flow(client, server, sender, receiver, rule.packets)
        flow.send(1)
        yield flow
