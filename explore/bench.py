"""The machine of one kernel in which scenarios run: saved once, restored for each batch."""
import shutil
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from explore import guest
from explore.footprints import evaluated
from explore.language import Scenario, Step, sockets
from kernels.extract import Kernel
from report.traffic import numbers
from rerun.attempts import prepare_booted
from rerun.bench import Bench
from rerun.conversation import Conversation, Gone, NeverBegan
from vm.forms import each, either, escaped, mapping, number, record, row, text, unpacked_json, whole
from vm.machine import Machine
from vm.outlet import Misbehaved

LONGEST = 60.0                              # seconds of QEMU's processor time for a scenario, days of waiting included
CRASHED, LOST = "crashed", "lost"
# Networks in a saved machine by their number of hosts, enough for a batch of 100 that the generator makes.
READY = {1: 16, 2: 66, 3: 46}
Observed = dict[str, Any]                   # of netns.scenario.run.observe()

# What a machine does before it is saved: modules are loaded, libraries imported.
_FIRST: tuple[Step, ...] = (
    {"do": "firewall", "host": "server", "hook": "input", "match": "udp", "verdict": "reject"},
    {"do": "socket", "host": "server", "name": "listener", "kind": "tcp"},
    {"do": "option", "socket": "listener", "option": "SO_REUSEADDR", "value": 1},
    {"do": "bind", "socket": "listener", "address": "any", "port": 80},
    {"do": "listen", "socket": "listener", "backlog": 5},
    {"do": "socket", "host": "client", "name": "conn", "kind": "tcp"},
    {"do": "connect", "socket": "conn", "address": "server", "port": 80},
    {"do": "wait", "seconds": 0.1},
    {"do": "accept", "socket": "listener", "name": "peer"},
    {"do": "send", "socket": "conn", "size": 100},
    {"do": "receive", "socket": "peer", "size": 100},
    {"do": "segment", "socket": "conn", "flags": "A"},
    {"do": "icmp", "socket": "conn", "error": "host-unreachable"},
    {"do": "socket", "host": "client", "name": "datagrams", "kind": "udp"},
    {"do": "option", "socket": "datagrams", "option": "IP_RECVERR", "value": 1},
    {"do": "send", "socket": "datagrams", "size": 10, "address": "server", "port": 80},
    {"do": "socket", "host": "client", "name": "echo", "kind": "ping"},
    {"do": "send", "socket": "echo", "size": 10, "address": "server"},
    {"do": "socket", "host": "client", "name": "plain", "kind": "raw"},
    {"do": "send", "socket": "plain", "size": 10, "address": "server"},
    {"do": "rule", "host": "client", "operation": "add", "action": "prohibit", "priority": 100, "to": "spare"},
    {"do": "route", "host": "client", "operation": "add", "to": "nowhere", "type": "unreachable"},
    *({"do": "tunnel", "host": "client", "peer": "server", "kind": kind} for kind in ("ipip", "sit", "gre", "vxlan")),
    {"do": "ipsec", "host": "client", "peer": "server", "mode": "transport", "part": "both"},
    *({"do": "nat", "host": "client", "kind": kind} for kind in ("masquerade", "redirect", "dnat", "track")),
    {"do": "send", "socket": "datagrams", "size": 10, "address": "server", "port": 81},
    {"do": "wait", "seconds": 0.1},
    {"do": "errors", "socket": "datagrams"},
    {"do": "poll", "socket": "datagrams"},
    {"do": "shutdown", "socket": "conn", "how": "write"},
    {"do": "close", "socket": "conn"},
)


def _first(hosts: int) -> list[Step]:
    """Of these steps those for which there are hosts."""
    if hosts > 1:
        return [step for step in _FIRST if hosts == 2 or step["do"] not in ("tunnel", "ipsec")]
    return [step for step in _FIRST if "server" not in (step.get("host"), step.get("peer"), step.get("address"))
            and step.get("socket") not in ("listener", "peer")]


WARMING = [{"version": 1, "family": family, "hosts": hosts, "steps": _first(hosts)} for family in ("ipv4", "ipv6") for hosts in (2, 3, 1)]


def fitting(scenarios: Sequence[Scenario]) -> Sequence[Scenario]:
    """The first of them, for which a saved machine has networks."""
    left = Counter(READY)
    for done, scenario in enumerate(scenarios):
        left[scenario["hosts"]] -= 1
        if left[scenario["hosts"]] < 0:
            return scenarios[:done]
    return scenarios


_OBSERVED = record({"steps": each(row(text, number)), "events": each(row(text, text, number)), "log": each(text),
                    "sockets": mapping(mapping(either(whole, text))), "routes": mapping(each(text)),
                    "tracked": mapping(each(text)), "hosts": mapping(record({"frames": text, "texts": mapping(mapping(text))}))},
                   {"wrong": each(row(text, text))})


def read(scenario: Scenario, answer: object) -> Observed:
    """What netns.scenario.run.observe() returned of a scenario. Raises Misbehaved if that is nothing which it returns."""
    found = unpacked_json(answer)
    if not _OBSERVED(found) or not _is_readable(found):
        raise Misbehaved("the guest sent no observation")
    names = {name for name, _kind in sockets(scenario)}
    if len(found["steps"]) != len(scenario["steps"]) or not names.issuperset([*found["sockets"], *(name for name, *_ in found["events"])]):
        raise Misbehaved("the guest sent an observation of another scenario")
    observed: Observed = escaped(found)
    return observed


def _is_readable(found: Observed) -> bool:
    """Whether the packets are packets and the counters counters."""
    try:
        hosts = {role: evaluated(**unread) for role, unread in found["hosts"].items()}
        numbers(hosts, found["log"])
    except (ValueError, LookupError, struct.error):
        return False
    return all(whole(value) for host in hosts.values() for value in host["counters"].values())


class ScenarioConversation(Conversation):
    """The channel to explore.guest."""

    program = guest


class ScenarioBench(Bench[Machine]):
    """The saved machine of a kernel."""

    machine_class = Machine
    conversation_class = ScenarioConversation

    def __init__(self, kernel: Kernel, directory: Path) -> None:
        """`directory` is new, for what ends with this process."""
        super().__init__(kernel, directory, directory / "saved", [])
        self.computed_s = 0.0               # of QEMU's processor time, in machines that have ended

    @property
    def counters(self) -> list[str]:
        """The names of the kernel's counters."""
        return self.tests

    def boot(self) -> None:
        """Raises Gone, VMError, ImageError, CacheError."""
        def warm(conversation: Conversation) -> None:
            conversation.ask("run", ([(each, False) for each in WARMING], 0))
            for _ in range(1 + len(WARMING)):
                conversation.answer(LONGEST)
            conversation.ask("build", READY)
            conversation.answer(LONGEST)

        prepare_booted(self, self.directory / "boot", warm=warm)

    def observe(self, scenarios: Sequence[Scenario], seed: int, checked: bool = False) -> list[Observed]:
        """What each scenario shows; if `checked`, with "wrong" (netns.scenario.checks), and the last one of a machine also with what the
        machine then keeps of all. One that ends the machine has {"ended": how, "why": the console's line}, and the rest run in another.
        Raises VMError, and Gone for a machine that never began or was told to end."""
        found: list[Observed] = []
        while len(found) < len(scenarios):
            try:
                for each in self._run(fitting(scenarios[len(found):]), seed, checked):
                    found.append(each)
            except NeverBegan:
                raise
            except Gone as gone:
                if self.over:
                    raise
                found.append({"ended": gone.end, "why": str(gone).partition("\n")[0]})
            except Misbehaved as error:
                found.append({"ended": LOST, "why": str(error)})
        return found

    def _run(self, scenarios: Sequence[Scenario], seed: int, checked: bool) -> Iterator[Observed]:
        with self.restored([(each, checked) for each in scenarios], seed) as (machine, conversation):
            try:
                try:
                    conversation.answer(LONGEST)
                except Gone as gone:
                    raise NeverBegan(str(gone), gone.end) from None
                for scenario in scenarios:
                    yield read(scenario, conversation.answer(LONGEST))
            finally:
                if machine.process.poll() is None:
                    self.computed_s += machine.computed_s()

    def remove(self) -> None:
        """Remove the saved machine."""
        shutil.rmtree(self.state, ignore_errors=True)
