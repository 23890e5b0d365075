"""What runs in the guest: pytest collects, then runs the requested tests, one at a time."""
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from execnet import Channel

    from vm.inlet import GatewayIO


def serve(channel: "Channel", arguments: list[str], directory: str, modules_stay: bool) -> None:
    """Send the node ids; then take ("run", (indexes, seed)), answered by None and then for each test,
    ("disturb", (index, disturbance)), and ("symbols", None).

    `modules_stay`: no test unloads a module, which would come back at another address.
    """
    import os
    import time
    import zlib

    import pytest
    from _pytest.config import _prepareconfig

    os.chdir(directory)

    class Server:
        @pytest.hookimpl(tryfirst=True)
        def pytest_runtestloop(self, session: pytest.Session) -> bool:
            channel.send([item.nodeid for item in session.items])
            while True:
                cast("GatewayIO", channel.gateway._io).take()       # an order that comes earlier would come in the middle of a test
                try:
                    order, argument = channel.receive()
                except EOFError:
                    return True
                for answer in getattr(self, order)(session, argument):
                    channel.send(answer)

        def run(self, session: pytest.Session, order: tuple[list[int], int]) -> Iterator[object]:
            """Yield None when it begins, then for each test the outcome, message, measurements, traffic, its beginning and end on the
            guest's clock (ns), and the statement that failed, as pytest marks it. When within a tick a test begins decides over delayed
            ACKs and timer rounding: the seed sets this, and the kernel's random numbers."""
            indexes, seed = order
            __main__.begin(seed)
            yield None
            for index in indexes:
                await_phase(seed, session.items[index].nodeid)
                self.outcome, self.message, self.statement = "passed", "", ""
                self.measurements: list[Any] = []
                self.traffic: Any = {}
                item = session.items[index]
                # A repeated test begins without what it left the time before.
                item.user_properties.clear()
                began = time.monotonic_ns()
                session.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
                session.shouldstop = session.shouldfail = False
                yield self.outcome, self.message, self.measurements, self.traffic, (began, time.monotonic_ns()), self.statement

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.outcome != "passed" and self.outcome == "passed":
                self.outcome = str(report.outcome)
                why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr         # of a skip
                self.message = str(getattr(getattr(why, "reprcrash", None), "message", why))[:500]
                self.statement = next((line for line in str(report.longrepr).splitlines() if line.startswith(">")), "")
            if report.when == "teardown":
                self.measurements = [value for name, value in report.user_properties if name == "measurement"]
                self.traffic = next((value for name, value in report.user_properties if name == "traffic"), {})

        def disturb(self, session: pytest.Session, order: tuple[int, tuple[str, int, str] | None]) -> Iterator[object]:
            """Yield what fixtures.disturbances.run() finds of a test, in a world that is disturbed as the order says, or not."""
            from fixtures import disturbances
            index, asked = order
            self.outcome, self.message, self.statement = "passed", "", ""
            yield disturbances.run(session.items[index], asked)

        def symbols(self, _session: pytest.Session, _argument: None) -> Iterator[bytes]:
            """/proc/kallsyms, compressed: the whole table does not fit beside the tests in a small machine."""
            with open("/proc/kallsyms", "rb") as file:
                yield zlib.compress(file.read(), 1)

    config = _prepareconfig(["-p", "no:terminal", "-p", "no:cacheprovider", "--traffic", *arguments], [Server()])
    vars(config).update(workerinput={"workerid": "rerun"}, workeroutput={})
    import __main__
    from fixtures.chance import await_phase

    if modules_stay:
        import fixtures.clock
        fixtures.clock.TICKING = ("kdrift_none",)
    config.hook.pytest_cmdline_main(config=config)


if __name__ == "__channelexec__":
    given: "Channel" = globals()["channel"]         # by execnet
    serve(given, **given.receive())
