"""Where pytest meets the suite: options, the kernels, the private namespaces, the report."""
import argparse
import sys
from collections.abc import Generator

import pytest

pytest_plugins = ["fixtures.options", "fixtures.net", "fixtures.measure", "fixtures.clock", "fixtures.evidence", "fixtures.promise",
                  "fixtures.audit", "fixtures.service", "fixtures.transport", "fixtures.traffic", "fixtures.remains", "fixtures.shell",
                  "fixtures.chance", "fixtures.naming", "fixtures.invariants", "fixtures.table"]
ONLY_SHOWN = ("collectonly", "help", "version", "markers", "showfixtures", "show_fixtures_per_test")        # of pytest: no test runs
SHARE = 36                                  # of the rows of tables one in so many runs by default
VIRTUAL_DEADLINE = 14 * 86400               # seconds of the guest's clock for a test that lets days pass


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main() -> Generator[None, object, object]:
    """A session that cannot begin says so in one line, as a usage error does, with another status."""
    try:
        return (yield)
    except pytest.UsageError as error:
        if (status := getattr(error, "status", None)) is None:
            raise
        print(f"ERROR: {error}", file=sys.stderr)
        return status


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.option.shell = config.option.shell or config.option.shell_on is not None
    if hasattr(config, "workerinput") or any(getattr(config.option, name) for name in ONLY_SHOWN):
        return                              # a worker runs where it was put: in a guest, or in the controller's namespaces
    from report.verdict import fail_on
    try:
        config.option.fail_on = fail_on(config.option.fail_on)
    except ValueError as error:
        raise pytest.UsageError(f"--fail-on: {error}") from None
    if config.option.shell:
        check_terminal(config.option)
    from session.plugin import Report
    from session.recognise import Recognise
    if config.option.kernels or config.option.hosts or config.option.builders or config.option.vagrant is not None:
        if config.option.numprocesses:
            raise pytest.UsageError("-n applies to the running kernel only; with --kernel, use --slots")
        from cli.plan import find_session
        session = find_session(config)
        runs = list(session.runs.values())
        config.pluginmanager.register(session, "dsession")
    else:
        runs = []
        check_labels(config.option.labels)
        enter_namespaces()
    if config.option.changed:
        from session.suspected import ByCode
        by_code = ByCode(runs, config.option.changed, lambda line: config.get_terminal_writer().line(line))
        config.pluginmanager.register(by_code, "kdrift-by-code")
    config.pluginmanager.register(Report(config, runs), "kdrift-report")
    config.pluginmanager.register(Recognise(), "kdrift-known-issues")


def check_terminal(option: argparse.Namespace) -> None:
    """Raise pytest.UsageError where --shell cannot work: one shell at a time has the terminal, if there is one."""
    if option.numprocesses:
        raise pytest.UsageError("--shell cannot be combined with -n: it runs one test at a time")
    if option.hosts or option.builders or option.vagrant is not None:
        raise pytest.UsageError("--shell cannot be combined with --ssh, --builder or --vagrant: it needs a machine of this host")
    from vm.shell import terminal_missing
    if trouble := terminal_missing():
        raise pytest.UsageError(trouble)


def check_labels(labels: list[str]) -> None:
    """Raise pytest.UsageError for what cannot be the label of the running kernel, the only column there is."""
    from report.labels import LabelError, check_label
    try:
        if len(labels) > 1:
            raise LabelError(f"--label {labels[1]}: the running kernel is the only column")
        check_label(*labels or ["running"])
    except LabelError as error:
        raise pytest.UsageError(str(error)) from None


def enter_namespaces() -> None:
    """Leave the host's network, mounts and user behind, before any worker is started."""
    from netns.hosts import isolate
    try:
        isolate.enter()
    except isolate.IsolationError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("virtual_clock") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(VIRTUAL_DEADLINE))
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)
    if (chosen := getattr(config, "workerinput", {}).get("tests")) is not None:     # by a session with kernels
        found = {item.nodeid: item for item in items}
        items[:] = [found[name] for name in chosen if name in found]
    elif (config.option.tables or ("all" if config.option.validate else "some")) == "some":
        leave_out_of_tables(config, items)


def leave_out_of_tables(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect all rows of a table but every SHARE-th, of each test function and each parameter set (such as the family), which begin at
    different rows; those that were named by their ids stay."""
    named = [argument.rpartition("/")[2] for argument in config.args if "[" in argument]
    sets: dict[str, dict[str, list[pytest.Item]]] = {}
    for item in items:
        if item.get_closest_marker("table"):
            others = {name: value for name, value in item.callspec.params.items() if name != "row"}
            sets.setdefault(item.nodeid.partition("[")[0], {}).setdefault(repr(others), []).append(item)
    left = set()
    for groups in sets.values():
        for number, rows in enumerate(groups.values()):
            left |= set(rows) - set(rows[number % min(SHARE, len(rows))::SHARE])
    left = {item for item in left if item.nodeid.rpartition("/")[2] not in named}
    if left:
        config.hook.pytest_deselected(items=[item for item in items if item in left])
        items[:] = [item for item in items if item not in left]
