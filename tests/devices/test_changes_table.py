"""Who may change a tunnel device: of its own network namespace, and one that was moved and still tunnels through the namespace that it
comes from. Source: user_namespaces(7): "a process has privileges to perform operations on resources governed by a namespace only if it has
the capabilities in the user namespace that owns it"; ip-link(8), ip link set netns; include/uapi/linux/if_tunnel.h and if_link.h."""

import socket
import struct
from pathlib import Path

import pytest

from fixtures.table import Table
from fixtures.topologies import LAN
from netns import MissingFeature
from netns.attempt import errno_of
from netns.hosts.actor import Actor
from netns.hosts.namespace import Joined
from netns.hosts.operations import DELETE, Operator, kind_of_link, link, move_to
from netns.hosts.user import User
from netns.netlink import routes
from netns.netlink.message import attribute, nest

pytestmark = pytest.mark.topology(LAN)

ADMIN = "CAP_NET_ADMIN"
ROOT, OWNER, OTHER = "root", "root of a namespace with its network", "the same without CAP_NET_ADMIN"
USERS = {OWNER: User(1000, (), but=True, namespace=True, network=True),
         OTHER: User(1000, (ADMIN,), but=True, namespace=True, network=True)}
HOMES = ("its own", "moved")
LINKINFO, KIND, DATA = 18, 1, 2
SET = 0x5                                   # NLM_F_REQUEST | NLM_F_ACK
KEY = struct.pack(">I", 7)
V4 = tuple(socket.inet_pton(socket.AF_INET, text) for text in ("198.18.0.1", "198.18.0.2"))
V6 = tuple(socket.inet_pton(socket.AF_INET6, text) for text in ("2001:db8::1", "2001:db8::2"))


def ends(first, addresses):
    """The attributes of both addresses; the second has the next number."""
    return tuple(enumerate(addresses, first))


def number(value):
    return struct.pack("=I", value)


# GRE's flags for a key and sequence numbers, and both keys.
WITH_KEY = ((2, b"\x30\0"), (3, b"\x30\0"), (4, KEY), (5, KEY))
# By kind, what the device has, and the attribute that is changed with its two values.
KINDS = {
    **{kind: (ends(2, addresses), 4, b"\x09", b"\x0a") for kind, addresses in (("ipip", V4), ("sit", V4), ("ip6tnl", V6))},
    **{kind: (ends(6, addresses), 8, b"\x09", b"\x0a")
       for kind, addresses in (("gre", V4), ("gretap", V4), ("ip6gre", V6), ("ip6gretap", V6))},
    **{kind: ((*WITH_KEY, *ends(6, addresses), (22, b"\x01"), (21, number(5))), 8, b"\x09", b"\x0a")
       for kind, addresses in (("erspan", V4), ("ip6erspan", V6))},
    **{kind: ((*ends(4, addresses), (2, KEY)), 3, KEY, struct.pack(">I", 8)) for kind, addresses in (("vti", V4), ("vti6", V6))},
    "xfrm": ((), 2, number(7), number(8)),
    "vxlan": (((1, number(7)),), 8, number(300), number(200)),
    "geneve": (((1, number(7)), (2, V4[1])), 3, b"\x09", b"\x0a"),
}
TABLE = Table("devices.changes", "kind of device", "user, and where the device comes from", "user_namespaces(7); ip-link(8)", {
    kind: {f"{user}, {home}": "done" if user == ROOT or (user, home) == (OWNER, "its own") else "EPERM"
           for user in (ROOT, OWNER, OTHER) for home in HOMES} for kind in KINDS})


def acting(user):
    """A process with a network namespace of its own; root itself only needs the namespace."""
    return Actor(lambda: Operator(USERS.get(user, USERS[OWNER]), Path("/dev/net/tun"), 0))


def ask(namespace, request):
    """As root there; the errno, "done" for success."""
    return errno_of(routes.carry_out, namespace, [request]) or "done"


def index(namespace):
    with namespace.entered():
        return socket.if_nametoindex("t-1")


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_who_may_change_a_tunnel(net, row, table):
    """It takes the right in the namespace where the device is and in the one that it tunnels through; both belong to different users."""
    home, _other = net.nodes("client", "server")
    has, changed, before, after = KINDS[row]
    made = kind_of_link("t-1", row, *has, (changed, before))
    for column in table:
        user, _comma, origin = column.rpartition(", ")
        with acting(user) as actor, Joined(actor.pid) as place:
            answer = ask(home if origin == "moved" else place, made)
            if answer == "EOPNOTSUPP":
                raise MissingFeature(f"the kernel has no {row} devices")
            assert answer == "done"
            if origin == "moved":
                routes.carry_out(home, [move_to(index(home), place.descriptor)])
            data = nest(DATA, *(attribute(*each) for each in (*has, (changed, after))))
            request = link("", nest(LINKINFO, attribute(KIND, row.encode()), data), index=index(place), how=SET)
            table.saw(ask(place, request) if user == ROOT else actor.call("errno", request))
            routes.carry_out(place, [link("t-1", kind=DELETE, how=SET)])
