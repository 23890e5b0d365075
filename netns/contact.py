"""First contact: what two neighbours must know of each other before anything between them takes its normal time."""

import select
import socket

from .host import Host
from .wait import eventually


def meet(one: Host, other: Host) -> None:
    """Return when packets pass between two neighbours over IPv4 and IPv6.

    A link that has just come up may still swallow the first packet, and with it the ARP request or neighbour
    solicitation, which is sent again a second later. Raises NotMet.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        with one.socket(family, socket.SOCK_DGRAM) as sender, other.socket(family, socket.SOCK_DGRAM) as receiver:
            receiver.bind((other.address(family, one.role), 0))

            def arrives() -> bool:
                sender.sendto(b"", receiver.getsockname()[:2])
                return bool(select.select([receiver], [], [], 0.05)[0])

            eventually(arrives, True, within=10)
