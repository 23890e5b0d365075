"""What runs in the guest: scenarios, one after the other, each in new namespaces."""
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from execnet import Channel

    from vm.inlet import GatewayIO


def serve(channel: "Channel", directory: str) -> None:
    """Send the names of the kernel's counters; then take orders. ("build", numbers) makes networks ready, and is answered by None.
    ("run", (scenarios, seed)) is answered by None and then, for each scenario, which comes with whether it is to be checked, by what
    netns.scenario.run.observe() returns, as compressed JSON."""
    import json
    import sys
    import zlib
    from pathlib import Path

    sys.path.insert(0, directory)
    import __main__
    from fixtures.chance import await_phase
    from fixtures.clock import CLOCK
    from netns.observe.bystander import Bystander
    from netns.observe.counters import Counters
    from netns.observe.kmsg import KernelLog
    from netns.scenario.checks import remaining, violations
    from netns.scenario.ready import ReadyNetworks
    from netns.scenario.run import observe

    log, ready, bystander = KernelLog(), ReadyNetworks(), Bystander()

    # Else each tunnel's module adds a device to each namespace.
    Path("/proc/sys/net/core/fb_tunnels_only_for_init_net").write_text("1")

    def build(numbers: dict[int, int]) -> Iterator[None]:
        ready.build(numbers)
        yield None

    def run(scenarios: list[tuple[dict[str, Any], bool]], seed: int) -> Iterator[bytes | None]:
        """The scenario's longest timer sets the phase of the timer wheel at which it begins, the seed that within a tick: what ran before
        changes nothing."""
        __main__.begin(seed)
        ready.turn(seed)
        bystander.heard()                   # of begin()
        yield None
        for number, (scenario, checked) in enumerate(scenarios, 1):
            waits = sum(step["seconds"] for step in scenario["steps"] if step["do"] == "wait")
            CLOCK.align(max(1.0, waits))
            await_phase(seed, str(number))
            with ready.taken(scenario) as network:
                found = observe(scenario, network, log)
                if checked:
                    found["wrong"] = violations(network, bystander)
            if checked and number == len(scenarios):
                ready.remove_used()
                found["wrong"] += remaining()
                found["log"] += [record.text for record in log.records()]
            yield zlib.compress(json.dumps(found).encode(), 1)

    channel.send(Counters.read().names())
    while True:
        cast("GatewayIO", channel.gateway._io).take()       # an order that comes earlier would come in the middle of a scenario
        try:
            order, argument = channel.receive()
        except EOFError:
            return
        for answer in build(argument) if order == "build" else run(*argument):
            channel.send(answer)


if __name__ == "__channelexec__":
    given: "Channel" = globals()["channel"]         # by execnet
    serve(given, given.receive()["directory"])
