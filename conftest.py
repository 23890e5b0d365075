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
                    help="boot this kernel and run the tests on it; may be given several times (6.12, 6.1.187-1, a .deb, a bzImage, "
                         "a build tree)")
    group.addoption("--label", metavar="LABEL", action="append", dest="labels", default=[],
                    help="name the columns, in the order of the kernels and machines; instead of it SPEC=LABEL names one")
    group.addoption("--clock", choices=["virtual", "real"], default="virtual",
                    help="the clock of the kernels' machines: virtual skips idle time (default), real does not")
    group.addoption("--slots", metavar="N", type=positive, default=os.cpu_count(), help="machines at a time (default: one per core)")
    group.addoption("--fresh-boot", action="store_true", help="boot each kernel instead of restoring its saved state")
    group.addoption("--device", metavar="NAME", action="append", dest="devices", default=[],
                    help="give the machines this device of QEMU's (qemu-xhci, usb-tablet); may be given several times")
    group.addoption("--deadline", metavar="SECONDS", type=positive, default=120,
                    help="silence of a machine, in seconds in which it computes or sleeps, after which its test is given up (default: 120)")
    group.addoption("--seed", metavar="N", type=positive, default=1,
                    help="another number, another course of what is chance under the virtual clock (default: 1)")
    group.addoption("--shuffle", metavar="N", type=positive,
                    help="with --kernel: run the tests in an order and in shards that N chooses, to find what depends on the order")
    group.addoption("--ssh", metavar="[USER@]HOST[:PORT]", action="append", dest="hosts", default=[],
                    help="run the tests on this machine, in private namespaces; may be given several times")
    group.addoption("--own-machine", action="store_true", help="with --ssh: also the tests that change the whole machine")
    group.addoption("--builder", metavar="[USER@]HOST[:PORT]", action="append", dest="builders", default=[],
                    help="boot the kernels on this machine's QEMU; given several times, they are spread over all")
    group.addoption("--vagrant", metavar="NAME", nargs="*",
                    help="run the tests on these machines of the Vagrantfile (default: all that exist); with --kernel they boot "
                         "that kernel")
    group.addoption("--vagrant-destroy", action="store_true", help="destroy the machines that --vagrant has created")
    group.addoption("--ssh-config", metavar="FILE", help="ssh_config(5) for --ssh and --builder instead of your own")
    group.addoption("--report", metavar="DIR",
                    help="write the reports there: index.html, summary.md, results.json, junit.xml, results.ktap, kcidb.json")
    group.addoption("--bug-report", metavar="DIR",
                    help="leave a folder for each failed, crashed or known test there: report, standalone case, evidence")
    group.addoption("--good", metavar="SPEC", default="", help="a kernel on which the standalone cases of --bug-report must not reproduce")
    group.addoption("--replay", action="store_true",
                    help="keep the empty machine that verified a case of --bug-report, some 100 MB, to run it again exactly")
    group.addoption("--shell", action="store_true",
                    help="where a test fails, open a shell on the first host of its topology before that is taken down")
    group.addoption("--shell-on", metavar="HOST", help="the same, on this host")
    group.addoption("--validate", action="store_true", help="compare the kernels with the first one and print a verdict")
    group.addoption("--fail-on", metavar="CLASS,...", default="regression,gone", dest="fail_on",
                    help="what of the verdict makes the exit status 1: regression, gone, drift, changed, unexplained, known, unjudged "
                         "(default: regression,gone)")
    group.addoption("--exact", action="store_true",
                    help="compare measurements without their tolerances: two runs of one kernel are the same to the last digit")
    group.addoption("--bisect", action="store_true",
                    help="exit statuses for git bisect run: 0 passed, 1 failed, 125 nothing is known, above 127 wrong usage or interrupted")
    group.addoption("--confirm", metavar="N", type=natural, default=8,
                    help="try each regression again under N seeds, on both kernels (default: 8; 0: not at all)")
    group.addoption("--baseline", metavar="FILE",
                    help="compare with the first kernel of this results.json instead of running an old kernel again")
    group.addoption("--offline", action="store_true", help="use only what the cache holds")
    group.addoption("--mirror", metavar="URI", help="the Debian archive to use instead of the one that apt is set up for")


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
            raise pytest.UsageError("-n is for the running kernel of this machine; with --kernel use --slots")
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
        raise pytest.UsageError("--shell is for one test at a time: leave out -n")
    if option.hosts or option.builders or option.vagrant is not None:
        raise pytest.UsageError("--shell is for kernels of this machine: leave out --ssh, --builder and --vagrant")
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
