"""Limits on the number of connections: each tool x where the connections come from x what happens to one of them. Source:
iptables-extensions(8), connlimit; nft(8), ct count."""

import socket

import pytest

from fixtures.table import LeftOut, Table
from fixtures.topologies import ROUTED
from netns import TICK, CommandError, missing_feature
from netns.traffic.closing import fence
from netns.traffic.tcp import connect_unless_refused

pytestmark = pytest.mark.topology(ROUTED)

V6 = socket.AF_INET6
LOCALHOST = {socket.AF_INET: "127.0.0.1", V6: "::1"}
FIRST_PORT = 7000
TOOLS = ("connlimit", "ct count")
# The host that limits and the hook, the host that listens, the host that connects.
TRAFFIC = {"incoming": ("server", "input", "server", "client"), "from the host itself": ("server", "input", "server", "server"),
           "from localhost": ("server", "input", "server", "server"), "outgoing": ("client", "output", "server", "client"),
           "outgoing, from localhost": ("server", "output", "server", "server"), "forwarded": ("router", "forward", "server", "client")}
EVENTS = ("nothing happens", "one is reset", "all are reset")
LIMITS = (1, 2, 3)
SOURCE = "iptables-extensions(8), connlimit-above; nft(8), ct count: so many at the same time"


def expected(limit, event, traffic):
    if event != "nothing happens" and traffic.startswith("outgoing"):
        return LeftOut("the reset is sent by the host that counts: no document says when it has left")
    freed = {"nothing happens": 0, "one is reset": 1, "all are reset": limit}[event]
    return f"{limit} of {limit + 2}, then {freed} more"


TABLE = Table("conntrack.limits", "tool and traffic", "limit, event", SOURCE, {
    f"{tool}, {traffic}": {f"limit {limit}, {event}": expected(limit, event, traffic) for limit in LIMITS for event in EVENTS}
    for tool in TOOLS for traffic in TRAFFIC})


def limit(host, family, tool, hook, rules):
    """One rule for each pair of port and limit. Raises MissingFeature."""
    try:
        if tool == "connlimit":
            command, words = ("ip6tables-legacy", "128") if family == V6 else ("iptables-legacy", "32")
            for port, most in rules.items():
                host.run([command, "-w", "-A", hook.upper(), "-p", "tcp", "--syn", "--dport", str(port), "-m", "connlimit",
                          "--connlimit-above", str(most), "--connlimit-mask", words, "-j", "REJECT", "--reject-with", "tcp-reset"])
        else:
            host.nft("\n".join([
                "add table inet limits", f"add chain inet limits counting {{ type filter hook {hook} priority 0; }}",
                *(f"add rule inet limits counting tcp dport {port} ct state new ct count over {most} reject with tcp reset"
                  for port, most in rules.items())]))
    except CommandError as error:
        raise missing_feature("no match for a connection limit", error) from error


@pytest.mark.table(TABLE)
@pytest.mark.parametrize("row", TABLE.rows)
def test_so_many_connections_are_let_through_at_the_same_time(net, family, clock, row, table):
    """One that is reset makes room for another."""
    tool, _, traffic = row.partition(", ")
    limiter, hook, listening, connecting = (net[name] if name in net.hosts else name for name in TRAFFIC[traffic])
    columns = TABLE.columns(row)
    ports = {column: FIRST_PORT + number for number, column in enumerate(columns)}
    limit(limiter, family, tool, hook, {port: int(column.split()[1].rstrip(",")) for column, port in ports.items()})
    address = LOCALHOST[family] if "localhost" in traffic else listening.address(family)
    source = address if connecting is listening else connecting.address(family)
    for column in table:
        listener = listening.socket(family)
        listener.bind((address, ports[column]))
        listener.listen()
        most = int(column.split()[1].rstrip(","))

        def attempts(count, target=(address, ports[column])):
            return [connect_unless_refused(connecting, target, source) for _attempt in range(count)]

        conns = attempts(most + 2)
        held = [conn for conn in conns if conn is not None]
        for conn in held[:{"nothing": 0, "one": 1, "all": most}[column.split(", ")[1].split()[0]]]:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            conn.close()
        fence(connecting, listening, listening.address(family))
        clock.sleep(2 * TICK)               # the kernel updates the count at most once per jiffy
        more = [conn for conn in attempts(most + 1) if conn is not None]
        table.saw(f"{len(held)} of {most + 2}, then {len(more)} more")
        for conn in (*held, *more, listener):
            conn.close()
