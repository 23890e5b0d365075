"""Who may do what with network devices and sockets: users with and without capabilities, in and outside of a network namespace's own user
namespace. Source: capabilities(7), user_namespaces(7), Documentation/networking/tuntap.rst, socket(7), netdevice(7)."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.table import Measured, OneOf, Table
from fixtures.topologies import LAN
from netns import MissingOnHost
from netns.hosts.actor import Actor
from netns.hosts.namespace import Joined
from netns.hosts.operations import OPERATIONS, Operator, prepare
from netns.hosts.tun import features
from netns.hosts.user import User

pytestmark = pytest.mark.topology(LAN)

ADMIN, RAW, BIND, SYS = "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE", "CAP_SYS_ADMIN"
USERS = {
    "root": User(0, (), but=True),
    "root without CAP_NET_ADMIN": User(0, (ADMIN,), but=True),
    "root without capabilities": User(0),
    "user": User(1000),
    "user with CAP_NET_ADMIN": User(1000, (ADMIN,)),
    "user with CAP_NET_RAW": User(1000, (RAW,)),
    "user with CAP_NET_BIND_SERVICE": User(1000, (BIND,)),
    "user with CAP_SYS_ADMIN": User(1000, (SYS,)),
    "another user": User(2000),
    "root of a user namespace": User(1000, (), but=True, namespace=True),
    "root of a namespace with its network": User(1000, (), but=True, namespace=True, network=True),
    "the same without CAP_NET_ADMIN": User(1000, (ADMIN,), but=True, namespace=True, network=True),
    "the same without capabilities": User(1000, (), namespace=True, network=True),
}
ALL = {ADMIN, RAW, BIND, SYS}


def effective(user):
    """The capabilities that count in the network namespace where the user is: those of the user namespace that owns it."""
    if user.namespace and not user.network:
        return set()
    return ALL - set(user.capabilities) if user.but else set(user.capabilities)


def expected(user, needed, refusal, group):
    """`needed` is a capability, or several of which one is enough; "" is none."""
    has = effective(user)
    if group == "tun of its own" and user.number == 1000 or not needed or has & set(needed.split(" or ")):
        return "done"
    return refusal


def cell(user, name):
    operation = OPERATIONS[name]
    if operation.why:
        return Measured(operation.why)
    if operation.needs in ("the other namespace", "the first user namespace", "joining"):
        # user_namespaces(7): the other namespace belongs to the first user namespace, as does what is of no namespace. setns(2) also
        # needs the capability in the user's own.
        capability = SYS if operation.needs == "joining" else ADMIN
        return "done" if capability in effective(user) and not user.namespace else operation.refusal
    if operation.needs == "unshare":
        return "done" if SYS in (ALL - set(user.capabilities) if user.but else set(user.capabilities)) else "EPERM"
    if operation.since and RAW in effective(user) and ADMIN not in effective(user):
        return OneOf(("done", operation.refusal), operation.since)
    return expected(user, operation.needs, operation.refusal, operation.group)


RIGHTS = Table("devices.rights", "user", "operation", "capabilities(7), user_namespaces(7), tuntap.rst",
               {who: {name: cell(user, name) for name in OPERATIONS} for who, user in USERS.items()})


@contextmanager
def tun_node() -> Iterator[Path]:
    """A device node like /dev/net/tun that everyone may open, as tuntap.rst says is not dangerous."""
    with tempfile.TemporaryDirectory() as directory:
        node = Path(directory, "tun")
        os.chmod(directory, 0o755)
        try:
            os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(10, 200))
        except PermissionError as error:
            raise MissingOnHost(f"cannot make a device node: {error.strerror}") from error
        os.chmod(node, 0o666)
        yield node


@pytest.mark.table(RIGHTS)
@pytest.mark.parametrize("row", RIGHTS.rows)
def test_who_may_do_what_with_devices_and_sockets(net, row, table):
    """A cell is the errno. Users 1000 and root of a user namespace own a tun device, and their group another."""
    host, other = net.nodes("client", "server")
    user = USERS[row]
    features(host)                          # loads the driver
    with tun_node() as node:
        with host.entered():
            actor = Actor(lambda: Operator(user, node, other.namespace.descriptor))
        with actor:
            with Joined(actor.pid) as namespace:
                prepare(namespace, node)
            seen = actor.call("all", within=60)
    for column in table:
        table.saw(seen[column])
