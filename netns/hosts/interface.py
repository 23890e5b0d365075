"""One end of a link."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache


@dataclass(frozen=True)
class Interface:
    """One end of a link: its name, index and MAC address, and its addresses by family."""

    name: str
    index: int
    mac: str
    addresses: Mapping[socket.AddressFamily, ipaddress.IPv4Interface | ipaddress.IPv6Interface] = field(hash=False)

    @cache
    def address(self, family: socket.AddressFamily) -> str:
        """The address without the prefix length."""
        return str(self.addresses[family].ip)
