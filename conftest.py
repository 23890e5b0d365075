"""Where pytest meets the suite: options, the kernels, the private namespaces, the report."""
import argparse
import os

import pytest

pytest_plugins = ["fixtures.net", "fixtures.measure", "fixtures.clock", "fixtures.evidence", "fixtures.promise", "fixtures.audit",
                  "fixtures.service", "fixtures.transport", "fixtures.traffic", "fixtures.remains", "fixtures.shell", "fixtures.chance"]
PLUGIN = "kdrift-command-line"              # ./kdrift's (cli.run.CommandLine)
ONLY_SHOWN = ("collectonly", "help", "version", "markers", "showfixtures", "show_fixtures_per_test")        # of pytest: no test runs
VIRTUAL_DEADLINE = 14 * 86400               # seconds of the guest's clock for a test that lets days pass


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    if not pluginmanager.has_plugin(PLUGIN):
        add_options(parser)


def add_options(parser: pytest.Parser) -> None:
    """The suite's options.  ./kdrift adds them before pytest reads its command line, pytest alone when it loads this file."""
    group = parser.getgroup("kdrift", "kernels")
    group.addoption("--kernel", metavar="SPEC", action="append", dest="kernels", default=[],
                    help="boot this kernel (6.12, 6.1.187-1, a .deb, a bzImage, a build tree) and run the tests on it; repeatable")
    group.addoption("--label", metavar="LABEL", action="append", dest="labels", default=[],
                    help="name the columns, in the order of the kernels and machines; SPEC=LABEL names a single one")
    group.addoption("--clock", choices=["virtual", "real"], default="virtual",
                    help="the guests' clock: virtual skips idle time (default), real does not")
    group.addoption("--slots", metavar="N", type=positive, default=os.cpu_count(),
                    help="number of machines at a time (default: one per core)")
    group.addoption("--fresh-boot", action="store_true", help="boot each kernel instead of restoring its saved state")
    group.addoption("--device", metavar="NAME", action="append", dest="devices", default=[],
                    help="add this QEMU device to the machines (qemu-xhci, usb-tablet); repeatable")
    group.addoption("--deadline", metavar="SECONDS", type=positive, default=120,
                    help="give up a test when its machine is silent for this long, not counting waits for a CPU "
                         "(default: 120)")
    group.addoption("--seed", metavar="N", type=positive, default=1,
                    help="seed for what is random under the virtual clock (default: 1)")
    group.addoption("--ssh", metavar="[USER@]HOST[:PORT]", action="append", dest="hosts", default=[],
                    help="run the tests on this machine, in private namespaces; repeatable")
    group.addoption("--own-machine", action="store_true", help="with --ssh: also run the tests that change the whole machine")
    group.addoption("--builder", metavar="[USER@]HOST[:PORT]", action="append", dest="builders", default=[],
                    help="boot the kernels with QEMU on this machine; repeatable, several builders share the kernels")
    group.addoption("--vagrant", metavar="NAME", nargs="*",
                    help="run the tests on these machines of the Vagrantfile (default: all that exist); with --kernel, boot that "
                         "kernel on them")
    group.addoption("--vagrant-destroy", action="store_true", help="destroy the machines that --vagrant created, instead of halting them")
    group.addoption("--ssh-config", metavar="FILE", help="ssh_config(5) for --ssh and --builder, instead of your own")
    group.addoption("--report", metavar="DIR",
                    help="write the reports to DIR: index.html, summary.md, results.json, junit.xml, results.ktap, kcidb.json")
    group.addoption("--bug-report", metavar="DIR",
                    help="write to DIR a folder for each failed, crashed or known test: report, standalone case, evidence")
    group.addoption("--good", metavar="SPEC", default="",
                    help="a kernel on which the standalone cases of --bug-report must not reproduce the bug")
    group.addoption("--replay", action="store_true",
                    help="keep the empty machine that verified a --bug-report case (about 100 MB), to replay it exactly")
    group.addoption("--shell", action="store_true",
                    help="open a shell on the first host of a failed test's topology, before teardown")
    group.addoption("--shell-on", metavar="HOST", help="like --shell, but on this host")
    group.addoption("--validate", action="store_true", help="compare each kernel with the first one and print a verdict")
    group.addoption("--fail-on", metavar="CLASS,...", default="regression,gone", dest="fail_on",
                    help="classes that make the exit status 1: regression, gone, drift, changed, unexplained, known, unjudged "
                         "(default: regression,gone)")
    group.addoption("--exact", action="store_true",
                    help="compare measurements without their tolerances: any difference is drift")
    group.addoption("--bisect", action="store_true",
                    help="exit statuses for git bisect run: 0 passed, 1 failed, 125 unknown, above 127 wrong usage or interrupted")
    group.addoption("--confirm", metavar="N", type=natural, default=8,
                    help="retry each regression under N seeds on both kernels (default: 8; 0 disables it)")
    group.addoption("--baseline", metavar="FILE",
                    help="compare with the first kernel of this results.json instead of running an old kernel again")
    group.addoption("--offline", action="store_true", help="use only what is in the cache")
    group.addoption("--mirror", metavar="URI", help="use this Debian archive instead of the one that apt is configured for")


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("virtual_clock") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(VIRTUAL_DEADLINE))
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)
