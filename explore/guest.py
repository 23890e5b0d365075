"""What runs in the guest: scenarios, one after the other, each in new namespaces."""
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from execnet import Channel

    from vm.inlet import GatewayIO


def serve(channel: "Channel", directory: str) -> None:
    """Send the names of the kernel's counters; then take ("run", (scenarios, seed)), answered by None and then, for each scenario, by what
    netns.scenario.run.observe() returns, as compressed JSON."""
    import json
    import sys
    import zlib

    sys.path.insert(0, directory)
    import __main__
    from fixtures.chance import await_phase
    from fixtures.clock import CLOCK
    from netns.observe.counters import Counters
    from netns.observe.kmsg import KernelLog
    from netns.scenario.run import observe

    log = KernelLog()

    def run(scenarios: list[dict[str, Any]], seed: int) -> Iterator[bytes | None]:
        """The scenario's longest timer sets the phase of the timer wheel at which it begins, the seed that within a tick: what ran before
        changes nothing."""
        __main__.begin(seed)
        yield None
        for number, scenario in enumerate(scenarios):
            waits = sum(step["seconds"] for step in scenario["steps"] if step["do"] == "wait")
            CLOCK.align(max(1.0, waits))
            await_phase(seed, str(number))
            yield zlib.compress(json.dumps(observe(scenario, log)).encode(), 1)

    channel.send(Counters.read().names())
    while True:
        cast("GatewayIO", channel.gateway._io).take()       # an order that comes earlier would come in the middle of a scenario
        try:
            _order, argument = channel.receive()
        except EOFError:
            return
        for answer in run(*argument):
            channel.send(answer)


if __name__ == "__channelexec__":
    given: "Channel" = globals()["channel"]         # by execnet
    serve(given, given.receive()["directory"])
