"""Who may create, move and delete a device of each kind: whoever has CAP_NET_ADMIN in the user namespace that owns the network namespace,
and for moving one in that of the other network namespace too. Source: capabilities(7), user_namespaces(7), ip-link(8).
"""

import errno
import socket
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.table import Measured, Table
from fixtures.topologies import LAN
from netns import MissingFeature
from netns.attempt import errno_name
from netns.hosts.actor import Actor
from netns.hosts.namespace import Joined
from netns.hosts.operations import DELETE, Operator, kind_of_link, link, move_to
from netns.hosts.user import User
from netns.netlink import routes

pytestmark = pytest.mark.topology(LAN)

ADMIN = "CAP_NET_ADMIN"
USERS = {
    "root": User(0, (), but=True), "root without CAP_NET_ADMIN": User(0, (ADMIN,), but=True), "a user": User(1000),
    "a user with CAP_NET_ADMIN": User(1000, (ADMIN,)), "root of a user namespace": User(1000, (), but=True, namespace=True),
    "root of a namespace with its network": User(1000, (), but=True, namespace=True, network=True),
}


def u16(kind, value):
    return kind, struct.pack("=H", value)


def u32(kind, value):
    return kind, struct.pack("=I", value)


def v4(kind, value):
    return kind, bytes([203, 0, 113, value])


# By kind: whether it needs a lower device, and its attributes (include/uapi/linux/if_link.h, if_tunnel.h) for the device of this number.
KINDS = {
    "veth": (False, lambda number: []), "dummy": (False, lambda number: []), "ifb": (False, lambda number: []),
    "bridge": (False, lambda number: []), "bond": (False, lambda number: []), "nlmon": (False, lambda number: []),
    "wireguard": (False, lambda number: []), "vcan": (False, lambda number: []),
    "vrf": (False, lambda number: [u32(1, 100 + number)]),
    "macvlan": (True, lambda number: []), "macvtap": (True, lambda number: []), "ipvlan": (True, lambda number: []),
    "vlan": (True, lambda number: [u16(1, number)]),
    "vxlan": (False, lambda number: [u32(1, number), u16(15, 4789)]),
    "geneve": (False, lambda number: [u32(1, number), v4(2, number)]),
    "ipip": (False, lambda number: [v4(3, number)]), "sit": (False, lambda number: [v4(3, number)]),
    "gre": (False, lambda number: [v4(7, number)]), "gretap": (False, lambda number: [v4(7, number)]),
    "vti": (False, lambda number: [v4(5, number)]), "xfrm": (False, lambda number: [u32(2, number)]),
    "ip6tnl": (False, lambda number: [(3, socket.inet_pton(socket.AF_INET6, f"2001:db8:9::{number}"))]),
    "ip6gre": (False, lambda number: [(7, socket.inet_pton(socket.AF_INET6, f"2001:db8:9::{number}"))]),
}
DEEDS = ("create", "move", "delete")


def cell(deed, user):
    if user.namespace and not user.network or (ADMIN in user.capabilities) == user.but:
        return "EPERM"
    if deed == "move":
        # ip-link(8): "Note that it's not possible to move certain devices between namespaces", and does not say which.
        return "EPERM" if user.namespace else Measured("ip-link(8) does not say which devices can be moved")
    return "done"


RIGHTS = Table("devices.kinds", "kind", "operation", "capabilities(7), user_namespaces(7)",
               {kind: {f"{deed} by {who}": cell(deed, user) for who, user in USERS.items() for deed in DEEDS} for kind in KINDS})


def device(kind, number, lower):
    needs, data = KINDS[kind]
    return kind_of_link(f"d{number}", kind, *data(number), lower=lower if needs else 0)


def made(namespace, kind, number, lower):
    """A device of this kind that the user has not made; its index. Raises MissingFeature where the kernel has none."""
    result, = routes.outcomes(namespace, [device(kind, number, lower)])
    if result in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
        raise MissingFeature(f"the kernel has no devices of type {kind}")
    if result:
        raise OSError(result, f"{errno_name(result)}: making a device of type {kind}")
    with namespace.entered():
        return socket.if_nametoindex(f"d{number}")


def deeds(host, other, kind, user, first):
    """The errno of each deed of this user, whose devices have the numbers from `first` on."""
    with ExitStack() as stack:
        with host.entered():
            actor = stack.enter_context(Actor(lambda: Operator(user, Path("/dev/net/tun"), other.namespace.descriptor)))
        namespace = stack.enter_context(Joined(actor.pid))
        lower_result = routes.outcomes(namespace, [kind_of_link(f"lower{first}", "veth")])
        if lower_result != [0]:
            raise MissingFeature("the kernel has no devices of type veth")
        with namespace.entered():
            lower = socket.if_nametoindex(f"lower{first}")
        moved, deleted = (made(namespace, kind, first + more, lower) for more in (1, 2))
        requests = {"create": device(kind, first, lower), "move": move_to(moved, other.namespace.descriptor),
                    "delete": link("", index=deleted, kind=DELETE, how=0x5)}
        return {deed: actor.call("errno", requests[deed]) for deed in DEEDS}


@pytest.mark.table(RIGHTS)
@pytest.mark.parametrize("row", RIGHTS.rows)
def test_who_may_create_move_and_delete_a_device_of_this_kind(net, row, table):
    """Users 0 and 1000, with and without the capability, inside and outside of a user namespace."""
    host, other = net.nodes("client", "server")
    seen = {}
    for number, (who, user) in enumerate(USERS.items()):
        seen.update((f"{deed} by {who}", result) for deed, result in deeds(host, other, row, user, 1 + 3 * number).items())
    for column in table:
        table.saw(seen[column])
