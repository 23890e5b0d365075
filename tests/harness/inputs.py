"""Options of the tests of hostile input, and the count of the inputs, which is printed at the end."""
import pytest

INPUTS = pytest.StashKey[dict[str, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hostile input")
    group.addoption("--fuzz", type=int, default=10_000, metavar="N", help="cases that the fuzzer tries, of all parsers (default: %(default)s)")
    group.addoption("--kills", type=int, default=4, metavar="N", help="moments at which a session is killed (default: %(default)s)")
    group.addoption("--pairs", type=int, default=2, metavar="N", help="times that two sessions share a cache (default: %(default)s)")
    group.addoption("--machines", action="store_true", help="for --kills and --pairs: real machines instead of stand-ins")


@pytest.fixture
def inputs(request: pytest.FixtureRequest) -> dict[str, int]:
    """By kind, how many hostile inputs were tried."""
    return request.config.stash.setdefault(INPUTS, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for kind, count in config.stash.get(INPUTS, {}).items():
        terminalreporter.write_line(f"hostile input: {count} {kind}")
