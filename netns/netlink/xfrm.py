"""IPsec on a host: policies, security associations (SAs), and the kernel's messages to key managers.

Speaks NETLINK_XFRM directly, because pyroute2 has no xfrm and `ip` has no command for per-socket policies; `ip xfrm`
remains an independent witness. Source: include/uapi/linux/xfrm.h, ip-xfrm(8), RFC 4301.
"""

import errno
import os
import select
import socket
import time
from collections.abc import Sequence

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST

from netns import unsupported
from netns.errors import ExpectationFailed, MissingFeature
from netns.hosts.host import Host
from netns.named import NamedList
from netns.netlink import xfrm_wire as wire
from netns.netlink.ipsec import SA, Acquire, Algorithm, Expire, Policy, Replay, Selector, Template
from netns.netlink.message import message
from netns.netlink.rtnl import exchange

__all__ = [
    "Acquire", "Algorithm", "Expire", "KeyManager", "Policy", "Replay", "SA", "Selector", "Template", "add", "delete", "set_on_socket",
    "update",
]

_NETLINK_XFRM = 6
_IP_XFRM_POLICY, _IPV6_XFRM_POLICY = 17, 35
# Errors of a kernel without esp4, esp6 or the algorithm.
_LACKING = (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.ENOSYS, errno.ENOENT)


def add(host: Host, *items: Policy | SA) -> None:
    """Add these policies and SAs to the host, in order, in one datagram.

    An SA replaces the larval SA that waits for it. Raises FileExistsError (EEXIST) for a duplicate, MissingFeature if the
    kernel lacks ESP or the algorithm, OSError for any other refusal.
    """
    try:
        _request(host, [_new(item) for item in items], items)
    except OSError as error:
        if not isinstance(error, MissingFeature) and error.errno in _LACKING and any(isinstance(item, SA) for item in items):
            raise MissingFeature(f"the kernel lacks ESP with {_algorithms(items)}: {os.strerror(error.errno)}") from error
        raise


def update(host: Host, item: Policy | SA) -> None:
    """Replace the policy with the same selector and direction, or complete a larval SA that has an SPI.

    Raises OSError: ESRCH for an unknown SA.
    """
    if isinstance(item, Policy):
        _request(host, [(wire.UPDPOLICY, wire.policy_with_template(item))], [item])
    else:
        _request(host, [(wire.UPDSA, wire.sa(item))], [item])


def delete(host: Host, *items: Policy | SA) -> None:
    """Delete them. Raises OSError: ENOENT for an unknown policy, ESRCH for an unknown SA."""
    _request(host, [
        (wire.DELPOLICY, wire.policy_id(item)) if isinstance(item, Policy) else (wire.DELSA, wire.sa_id(item))
        for item in items
    ], items)


def set_on_socket(sock: socket.socket, policy: Policy) -> None:
    """Set a policy for this socket alone, ahead of all others (IP_XFRM_POLICY; include/uapi/linux/in.h).

    Needs CAP_NET_ADMIN over the socket's namespace. Raises OSError; MissingFeature if the kernel lacks NETLINK_XFRM.
    """
    # Opening such a socket loads xfrm_user, without which the kernel rejects every policy with EINVAL.
    with unsupported.in_request(unsupported.netlink(_NETLINK_XFRM)):
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_XFRM).close()
    level, option = (
        (socket.IPPROTO_IP, _IP_XFRM_POLICY) if sock.family == socket.AF_INET
        else (socket.IPPROTO_IPV6, _IPV6_XFRM_POLICY)
    )
    sock.setsockopt(level, option, wire.policy(policy) + (wire.template(policy.template) if policy.template else b""))


def _algorithms(items: Sequence[Policy | SA]) -> str:
    """The algorithms of the SAs among the items."""
    names = (algorithm.name for item in items if isinstance(item, SA) for algorithm in item.algorithms)
    return ", ".join(dict.fromkeys(names)) or "rfc4106(gcm(aes))"


def _new(item: Policy | SA) -> tuple[int, bytes]:
    if isinstance(item, Policy):
        return wire.NEWPOLICY, wire.policy_with_template(item)
    return wire.NEWSA, wire.sa(item)


def _request(host: Host, requests: list[tuple[int, bytes]], names: Sequence[Policy | SA]) -> None:
    messages = [message(kind, NLM_F_REQUEST | NLM_F_ACK, body) for kind, body in requests]
    exchange(host.namespace, _NETLINK_XFRM, messages, names)


class KeyManager:
    """Receives what an IKE daemon would: each ACQUIRE and EXPIRE of the host, from its creation on.

    While one listens, a packet that needs a missing SA leaves a larval SA behind; otherwise it does not.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._messages: list[Acquire | Expire] = []
        self._returned = 0
        self._socket = host.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_XFRM)
        self._socket.bind((0, wire.GROUP_ACQUIRE | wire.GROUP_EXPIRE))
        self._socket.setblocking(False)

    def messages(self) -> list[Acquire | Expire]:
        """All messages so far, oldest first. Raises OSError ENOBUFS if some were lost."""
        while True:
            try:
                datagram = self._socket.recv(1 << 16)
            except BlockingIOError:
                return list(self._messages)
            event = wire.event(datagram)
            if event is not None:
                self._messages.append(event)

    def acquires(self) -> NamedList:
        acquires = (event for event in self.messages() if isinstance(event, Acquire))
        return NamedList(f"ACQUIREs received by the key manager of {self._host.role}", acquires)

    def expires(self) -> list[Expire]:
        return [event for event in self.messages() if isinstance(event, Expire)]

    def next(self, within: float) -> Acquire | Expire:
        """The oldest message that next() has not returned yet; waits up to `within` seconds for it. Raises ExpectationFailed."""
        began = time.monotonic()
        while len(self.messages()) == self._returned:
            gone = time.monotonic() - began
            if gone >= within:
                raise ExpectationFailed(
                    f"key manager of {self._host.role}: no message within {within:g} s; earlier ones: {self._messages}")
            select.select([self._socket], [], [], within - gone)
        self._returned += 1
        return self._messages[self._returned - 1]

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
