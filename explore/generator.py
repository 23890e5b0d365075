"""Scenarios made up by seed. Near-legal sequences come first: a small grammar knows TCP's states, so most connections get somewhere."""
import random
from collections.abc import Callable

from explore.language import DAY, ICMP_ERRORS, MOST_STEPS, OPTIONS, SEND_FLAGS, SYSCTLS, VERSION, Scenario, Step

# Seconds that pass between steps, with their weights: within an RTT, beyond a delayed ACK, some retransmissions, minutes, hours, days.
_WAITS = ((0.01, 30), (0.05, 20), (0.3, 15), (1.5, 10), (8, 8), (70, 4), (700, 1), (2 * 3600, 0.3), (2 * DAY, 0.03))
_SIZES = ((1, 3), (0, 1), (100, 5), (1000, 5), (1448, 2), (1449, 1), (3000, 3), (20000, 2), (200000, 1))
_ENDS = ("close", "shutdown", "linger", "silence", "lose", "reset", "down", "firewall", "rewrite")


def scenario(seed: str) -> Scenario:
    """The scenario of this seed, the same each time and everywhere."""
    return _Maker(random.Random(seed)).make()


class _Maker:
    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.hosts = chance.choices((2, 3, 1), (6, 4, 1))[0]
        self.near, self.far = "client", "server" if self.hosts > 1 else "client"
        self.steps: list[Step] = []
        self.made: dict[str, str] = {}      # kind of each socket
        self.place: dict[str, str] = {}     # host of each socket

    def make(self) -> Scenario:
        chance = self.chance
        found: Scenario = {"version": VERSION, "family": chance.choice(("ipv4", "ipv4", "ipv6")), "hosts": self.hosts}
        if self.hosts > 1 and chance.random() < 0.2:
            found["mtus"] = [chance.choice((1280, 1400, 1500, 9000)) for _ in range(self.hosts - 1)]
        for _ in range(chance.choices((0, 1, 2, 3), (4, 3, 2, 1))[0]):
            self.configure()
        subject = chance.choices((self.connection, self.attempt, self.datagrams, self.echo, self.raw), (55, 12, 18, 8, 5))[0]
        subject()
        for _ in range(chance.choices((0, 1, 2, 4), (4, 3, 2, 1))[0]):
            self.anything()
        self.wait()
        found["steps"] = self.steps[:MOST_STEPS]
        return found

    def add(self, do: str, **fields: object) -> None:
        self.steps.append({"do": do, **fields})

    def host(self) -> str:
        return self.chance.choice({1: ("client",), 2: ("client", "server"), 3: ("client", "router", "server")}[self.hosts])

    def neighbour(self, host: str) -> str:
        between = self.hosts == 3
        return {"client": "router" if between else "server", "server": "router" if between else "client", "router": "client"}[host]

    def weighted(self, table: tuple[tuple[float, float], ...]) -> float:
        return self.chance.choices([value for value, _ in table], [weight for _, weight in table])[0]

    def size(self) -> int:
        return int(self.weighted(_SIZES))

    def wait(self, least: float = 0.0) -> None:
        self.add("wait", seconds=max(least, self.weighted(_WAITS)))

    def target(self) -> str:
        """An address to send to: mostly the far host's."""
        if self.hosts == 1:
            return self.chance.choices(("loopback", "client", "nowhere"), (8, 2, 1))[0]
        return self.chance.choices((self.far, "loopback", "nowhere", "spare", "client", "any"), (20, 1, 1, 1, 1, 0.5))[0]

    def socket(self, name: str, kind: str, host: str) -> None:
        self.add("socket", host=host, name=name, kind=kind)
        self.made[name], self.place[name] = kind, host
        for _ in range(self.chance.choices((0, 1, 2), (6, 3, 1))[0]):
            self.option(name)

    def option(self, name: str) -> None:
        prefixes = {"tcp": ("SO_", "TCP_", "IP_"), "udp": ("SO_", "UDP_", "IP_")}.get(self.made[name], ("SO_", "IP_"))
        option = self.chance.choice([each for each in OPTIONS if each.startswith(prefixes)])
        self.add("option", socket=name, option=option, value=self.chance.choice(OPTIONS[option]))

    def configure(self) -> None:
        chance, host = self.chance, self.host()
        what = chance.choices(("sysctl", "route", "rule", "address", "firewall", "nat", "ipsec"), (10, 3, 1, 2, 3, 1.5, 1))[0]
        if what == "sysctl":
            name = chance.choice(list(SYSCTLS))
            self.add("sysctl", host=host, name=name, value=chance.choice(SYSCTLS[name]))
        elif what == "route":
            self.route(host)
        elif what == "rule":
            action = chance.choice(("table", "blackhole", "unreachable", "prohibit"))
            fields: Step = {"table": chance.choice((100, 254, 255))} if action == "table" else {}
            fields |= {chance.choice(("to", "from")): chance.choice((self.near, self.far, "nowhere"))}
            self.add("rule", host=host, operation="add", action=action, priority=chance.choice((1, 100, 32766, 40000)), **fields)
        elif what == "nat":
            self.add("nat", host=host, kind=chance.choice(("masquerade", "redirect", "dnat", "track")))
        elif what == "ipsec" and self.hosts > 1:
            self.add("ipsec", host="client", peer=self.neighbour("client"), mode=chance.choice(("transport", "tunnel")),
                     part=chance.choices(("both", "policies", "states"), (6, 1, 1))[0])
        elif what == "address":
            self.add("address", host=host, address="spare", operation=chance.choices(("add", "delete"), (5, 1))[0])
        else:
            self.firewall(host)

    def route(self, host: str) -> None:
        chance = self.chance
        kind = chance.choices(("unicast", "blackhole", "unreachable", "prohibit", "throw"), (6, 1, 1, 1, 1))[0]
        metrics: Step = {}
        if kind == "unicast" and chance.random() < 0.5:
            name, values = chance.choice((("mtu", (600, 1280, 1400)), ("advmss", (500, 1000)), ("hoplimit", (1, 3)), ("initcwnd", (1, 20)),
                                          ("quickack", (0, 1)), ("rto_min", (5, 1000))))
            metrics[name] = chance.choice(values)
        ways = {"client": "router", "server": "router"} if self.hosts == 3 else {}
        if kind == "unicast" and host in ways and chance.random() < 0.8:
            metrics["via"] = ways[host]
        self.add("route", host=host, operation=chance.choices(("add", "replace", "append", "delete"), (5, 3, 1, 1))[0],
                 to=chance.choice((self.far, self.near, "nowhere", "spare", "default")), type=kind, **metrics)

    def firewall(self, host: str) -> None:
        hook = self.chance.choice(("input", "output", "forward") if host == "router" else ("input", "output"))
        match = self.chance.choice(("all", "tcp", "syn", "synack", "ack", "rst", "fin", "udp", "icmp"))
        self.add("firewall", host=host, hook=hook, match=match, verdict=self.chance.choice(("drop", "drop", "reject", "reset")))

    def listener(self) -> None:
        self.socket("listener", "tcp", self.far)
        self.add("bind", socket="listener", address="any", port=80)
        self.add("listen", socket="listener", backlog=self.chance.choices((5, 0, 1), (8, 1, 1))[0])

    def connection(self) -> None:
        """A handshake, data in both directions, and one of the ways in which a connection ends; something may go wrong between any two."""
        self.listener()
        self.socket("conn", "tcp", self.near)
        far = self.far if self.hosts > 1 else "loopback"
        if self.hosts == 2 and self.chance.random() < 0.12:
            self.add("tunnel", host="client", peer="server", kind=self.chance.choice(("ipip", "sit", "gre", "vxlan")))
            far = "tunnel"
        translated = any(step["do"] == "nat" and step["kind"] in ("redirect", "dnat") for step in self.steps)
        self.add("connect", socket="conn", address=far, port=81 if translated else 80)
        self.wait(0.01)
        if self.chance.random() < 0.9:
            self.add("accept", socket="listener", name="peer")
            self.made["peer"], self.place["peer"] = "tcp", self.far
        ends = [name for name in self.made if name != "listener"]
        for _ in range(self.chance.randrange(5)):
            self.exchange(ends)
            self.maybe(0.25, self.disturb)
        self.ending(ends)
        self.wait()
        for name in ends:
            self.maybe(0.5, lambda name=name: self.look(name))      # type: ignore[misc]

    def exchange(self, ends: list[str]) -> None:
        one = self.chance.choice(ends)
        other = next((name for name in ends if name != one), one)
        flags = {"flags": self.chance.choice(SEND_FLAGS)} if self.chance.random() < 0.1 else {}
        self.add("send", socket=one, size=self.size(), **flags)
        self.maybe(0.7, self.wait)
        if self.chance.random() < 0.6:
            peek = {"flags": self.chance.choice(("MSG_PEEK", "MSG_OOB", "MSG_TRUNC"))} if self.chance.random() < 0.15 else {}
            self.add("receive", socket=other, size=self.chance.choice((1, 100, 65536)), **peek)

    def disturb(self) -> None:
        """Something goes wrong on the way: a stray segment or error, a filter, another route, a link that goes down and comes back."""
        name = self.chance.choice([name for name, kind in self.made.items() if kind == "tcp" and name != "listener"] or list(self.made))
        what = self.chance.choices(("segment", "icmp", "firewall", "route", "link", "flush"), (6, 5, 2, 2, 1, 1))[0]
        if what == "segment" and self.made[name] == "tcp":
            fields: Step = {"flags": self.chance.choices(("A", "R", "RA", "S", "SA", "FA", "F", "PA", "", "UA", "AEC", "SFRPAU"),
                                                         (8, 4, 4, 4, 2, 4, 1, 4, 1, 1, 1, 1))[0]}
            if self.chance.random() < 0.6:
                fields["seq"] = self.chance.choice((-1, 1, -1000, 1000, 30000, 100000, -100000, 1 << 31))
            if self.chance.random() < 0.3:
                fields["ack"] = self.chance.choice((-1, 1, -1000, 1000, 1 << 30, -(1 << 30)))
            if self.chance.random() < 0.3:
                fields["window"] = self.chance.choice((0, 1, 500, 65535))
            if self.chance.random() < 0.4:
                fields["size"] = self.chance.choice((1, 100, 1400))
            self.maybe(0.05, lambda: fields.update(bad_checksum=True))
            self.add("segment", socket=name, **fields)
        elif what in ("segment", "icmp"):
            error = self.chance.choice(ICMP_ERRORS)
            mtu = {"mtu": self.chance.choice((0, 68, 552, 1000, 1280, 1400, 9000))} if error == "frag-needed" else {}
            self.add("icmp", socket=name, error=error, **mtu)
        elif what == "flush":
            self.add("flush", host=self.host())
        else:
            self.event(what)

    def event(self, what: str) -> None:
        host = self.host()
        if what == "link" and self.hosts > 1:
            peer = self.neighbour(host)
            self.add("link", host=host, peer=peer, up=False)
            self.maybe(0.7, self.wait)
            self.maybe(0.7, lambda: self.add("link", host=host, peer=peer, up=True))
        elif what == "route":
            self.route(host)
        else:
            self.firewall(host)

    def ending(self, ends: list[str]) -> None:
        one = self.chance.choice(ends)
        how = self.chance.choice(_ENDS)
        if how == "shutdown":
            self.add("shutdown", socket=one, how=self.chance.choice(("write", "read", "both")))
            self.maybe(0.5, self.wait)
        elif how == "linger":
            self.add("option", socket=one, option="SO_LINGER", value=self.chance.choice((0, 1)))
            self.add("close", socket=one)
        elif how == "reset":
            self.add("segment", socket=one, flags="RA")
        elif how == "down":
            self.event("link")
        elif how == "lose":
            self.add("firewall", host=self.place[one], hook="input", match="tcp", verdict="drop")
            self.add("send", socket=one, size=self.size())
            self.wait(8)
        elif how == "firewall":
            self.firewall(self.host())
        elif how == "rewrite":
            self.add("disconnect", socket=one)
            self.maybe(0.5, lambda: self.add("connect", socket=one, address=self.target(), port=80))
        if how in ("close", "shutdown"):
            for name in self.chance.sample(ends, self.chance.randint(1, len(ends))):
                self.add("close", socket=name)
                self.maybe(0.5, self.wait)

    def attempt(self) -> None:
        """A connection that nobody or not everybody wants."""
        self.maybe(0.4, self.listener)
        self.maybe(0.6, lambda: self.firewall(self.host()))
        self.socket("conn", "tcp", self.near)
        self.maybe(0.2, lambda: self.add("bind", socket="conn", address=self.chance.choice(("any", self.near, "spare", "nowhere")),
                                         port=self.chance.choice((0, 80, 5000))))
        self.add("connect", socket="conn", address=self.target(), port=self.chance.choice((80, 81, 0)))
        self.wait(0.05)
        self.maybe(0.5, self.disturb)
        self.wait(8 if self.chance.random() < 0.6 else 0.3)
        self.look("conn")

    def datagrams(self) -> None:
        self.socket("sender", "udp", self.near)
        if self.chance.random() < 0.7:
            self.socket("taker", "udp", self.far)
            self.add("bind", socket="taker", address=self.chance.choice(("any", self.far)), port=5000)
        connected = self.chance.random() < 0.5
        if connected:
            self.add("connect", socket="sender", address=self.target(), port=5000)
        for _ in range(self.chance.randint(1, 4)):
            elsewhere = not connected or self.chance.random() < 0.2
            where = {"address": self.target(), "port": self.chance.choice((5000, 81, 0))} if elsewhere else {}
            self.add("send", socket="sender", size=self.size(), **where)
            self.maybe(0.6, self.wait)
            self.maybe(0.2, lambda: self.disturb_datagrams("sender"))
            if "taker" in self.made:
                self.maybe(0.5, lambda: self.add("receive", socket="taker", size=65536))
        self.look("sender")

    def disturb_datagrams(self, name: str) -> None:
        error = self.chance.choice(ICMP_ERRORS)
        self.add("icmp", socket=name, error=error, **({"mtu": self.chance.choice((0, 552, 1280, 1400))} if error == "frag-needed" else {}))

    def echo(self) -> None:
        self.socket("echo", "ping", self.near)
        for _ in range(self.chance.randint(1, 3)):
            self.add("send", socket="echo", size=min(self.size(), 60000), address=self.target())
            self.wait()
            self.maybe(0.6, lambda: self.add("receive", socket="echo", size=65536))
        self.look("echo")

    def raw(self) -> None:
        self.socket("plain", "raw", self.near)
        self.socket("taker", "raw", self.far)
        self.add("send", socket="plain", size=min(self.size(), 60000), address=self.target())
        self.wait()
        self.add("receive", socket="taker", size=65536)
        self.look("plain")

    def look(self, name: str) -> None:
        self.add(self.chance.choice(("errors", "poll")), socket=name)

    def anything(self) -> None:
        """Any step at all, legal or not."""
        name = self.chance.choice(list(self.made))
        steps: tuple[Callable[[], None], ...] = (
            lambda: self.option(name), self.configure, self.wait, lambda: self.look(name),
            lambda: self.add("send", socket=name, size=self.size()),
            lambda: self.add("receive", socket=name, size=65536),
            lambda: self.add("shutdown", socket=name, how=self.chance.choice(("read", "write", "both"))),
            lambda: self.add("connect", socket=name, address=self.target(), port=80),
            lambda: self.add("disconnect", socket=name), lambda: self.add("listen", socket=name, backlog=1),
            lambda: self.add("bind", socket=name, address=self.chance.choice(("any", self.near, "spare")),
                             port=self.chance.choice((80, 81))),
            lambda: self.add("close", socket=name))
        self.chance.choice(steps)()

    def maybe(self, probability: float, action: Callable[[], None]) -> None:
        if self.chance.random() < probability:
            action()
