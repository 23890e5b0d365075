"""Options of the tests of hostile input and faults, and the count of the inputs, which is printed at the end."""
import pytest

INPUTS = pytest.StashKey[dict[str, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hostile input")
    group.addoption("--fuzz", type=int, default=10_000, metavar="N",
                    help="cases that the fuzzer tries, of all parsers (default: %(default)s)")
    group.addoption("--kills", type=int, default=4, metavar="N", help="sessions that are killed at a random moment (default: %(default)s)")
    group.addoption("--kill-seed", type=int, metavar="N", help="seed of the moments (default: another each time, which a failure names)")
    group.addoption("--pairs", type=int, default=2, metavar="N", help="times that two sessions share a new cache (default: %(default)s)")
    group.addoption("--machines", action="store_true", help="kill and pair sessions with real kernels in machines (default: stand-ins)")
    group.addoption("--disks", action="store_true", help="fill every disk at every size (default: at some)")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist tells its counts."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["inputs"] = session.config.stash.get(INPUTS, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    """A worker has ended."""
    counts = node.config.stash.setdefault(INPUTS, {})
    for kind, count in getattr(node, "workeroutput", {}).get("inputs", {}).items():
        counts[kind] = counts.get(kind, 0) + count


@pytest.fixture
def inputs(request: pytest.FixtureRequest) -> dict[str, int]:
    """By kind, how many hostile inputs were tried."""
    return request.config.stash.setdefault(INPUTS, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for kind, count in config.stash.get(INPUTS, {}).items():
        terminalreporter.write_line(f"hostile input: {count} {kind}")
