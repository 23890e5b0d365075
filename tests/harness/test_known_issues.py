"""known_issues.toml: what an entry means, and that each still has its test."""
import subprocess
import sys
from types import SimpleNamespace

import pytest

from fixtures.evidence import is_wanted
from report import known
from report.known import Affected, Issue, KnownIssuesError, load, version_key
from report.results import Collector, KernelResult, outcome_of
from report.table import issue_lines
from session.recognise import Recognise
from session.session import KernelSession

ENTRY = '[[issue]]\nid = "a"\nsubject = "s"\ncommit = "0123456789ab"\ntests = ["t"]\nkernels = ["6.1..6.2"]\n'


@pytest.mark.parametrize("older, newer", [
    ("6.1.170-3", "6.1.176-1"), ("6.9", "6.12"), ("7.3~rc7-1~exp1", "7.3.4-1~bpo13+1"), ("7.3-rc7", "7.3"), ("7.3~rc2-1", "7.3~rc10-1"),
    ("5.10.218-1", "5.10.223-1"), ("6.12.90-2~bpo12+1", "6.12.90-3"), ("6.12.94+deb13-cloud-amd64", "6.12.95"),
])
def test_versions_are_in_the_order_of_their_releases(older, newer):
    assert version_key(older) < version_key(newer)


def test_a_range_ends_before_its_fix():
    affected = Affected("6.2", "6.12.94")

    assert [affected.holds(version) for version in ("6.1.170-3", "6.2", "6.12.90-2", "6.12.94-1", "6.12.95-1")] == [
        False, True, True, False, False]


def test_the_fix_is_that_of_the_kernels_own_series():
    issue = Issue("a", "s", ("t",), (Affected("5.10", "5.10.259"), Affected("5.11", "6.1.176"), Affected("6.2", "6.12.94")))

    assert [issue.fixed_in(version) for version in ("5.10.223-1", "6.1.170-3", "6.6.1", "7.0")] == ["5.10.259", "6.1.176", "6.12.94", None]


def test_the_fix_is_where_the_range_ends_that_holds_the_kernel():
    issue = Issue("a", "s", ("t",), (Affected("5.10", "5.10.251"), Affected("5.10.257", "5.11")))

    assert [issue.fixed_in(version) for version in ("5.10.223-1", "5.10.251-5", "5.10.262-1")] == ["5.10.251", "5.10.251", "5.11"]


def test_brackets_of_a_parameter_set_stand_for_themselves():
    issue = Issue("a", "s", ("t.py::test_x[4]", "t.py::test_y*"), ())

    assert [issue.shows_in(f"t.py::{name}") for name in ("test_x[4]", "test_x[15]", "test_x", "test_y[ipv4-1]")] == [
        True, False, False, True]


@pytest.mark.parametrize("text, complaint", [
    (ENTRY.replace('id = "a"\n', ""), "issue 1 (without an id): 'id' is a required property"),
    (ENTRY.replace("6.1..6.2", "6.1-6.2"), "issue 1 (a): '6.1-6.2' is not a version range FIRST..FIXED"),
    (ENTRY.replace("6.1..6.2", "6.1..new"), "issue 1 (a): 'new' is not a kernel version"),
    (ENTRY + "until = 3\n", "issue 1 (a): Additional properties are not allowed ('until' was unexpected)"),
    (ENTRY.replace('["t"]', '"t"'), "issue 1 (a): tests: 't' is not of type 'array'"),
    (ENTRY + ENTRY, "known_issues.toml: duplicate issue id a"),
    (ENTRY.replace("0123456789ab", "0123456789"), "issue 1 (a): commit: '0123456789' does not match '^[0-9a-f]{12,40}$'"),
    (ENTRY.replace('commit = "0123456789ab"\n', ""),
     "issue 1 (a): needs 'commit', the mainline hash, or 'commit_unknown' with the reason why there is none"),
    ("[[issue]\n", "known_issues.toml: "),
])
def test_a_bad_entry_is_named(tmp_path, text, complaint):
    file = tmp_path / "known_issues.toml"
    file.write_text(text)

    with pytest.raises(KnownIssuesError) as failure:
        load(file)

    assert complaint in str(failure.value)
    assert "\n" not in str(failure.value)


def test_every_pattern_has_its_test():
    """An entry whose test was renamed would keep silent for ever."""
    collected = subprocess.run([sys.executable, "-m", "pytest", "-c", "pytest.ini", "--collect-only", "-q", "--tables", "all", "tests"],
                               cwd=known.FILE.parent, capture_output=True, text=True)
    tests = [line for line in collected.stdout.splitlines() if "::" in line]

    assert tests, collected.stdout + collected.stderr
    orphans = [pattern for issue in load() for pattern in issue.tests
               if not any(Issue("", "", (pattern,), ()).shows_in(test) for test in tests)]
    assert orphans == []


def test_every_issue_has_its_signature():
    """Any failure of the test counts as the issue."""
    assert [issue.id for issue in load() if not issue.signatures] == []


@pytest.fixture
def listed(monkeypatch):
    """known_issues.toml lists test_x on 5.10, which shows itself so; the function judges a report of it."""
    def judged(recorded, message, ending=None, hung=False, outcome="failed"):
        issue = Issue("a", "s", ("t.py::test_x",), (Affected("5.10", "5.11"),), signatures=recorded)
        monkeypatch.setattr(known, "load", lambda: (issue,))
        report = pytest.TestReport("t.py::test_x", ("t.py", None, "test_x"), {}, outcome, message if outcome == "failed" else None, "call")
        report.kernel = SimpleNamespace(kernel=SimpleNamespace(version="5.10.262-1", release=""))
        if ending:
            report.ending, report.hung, report.again, report.wall_s = ending, hung, False, 1.0
        next(Recognise().pytest_runtest_logreport(report))
        collector = Collector()
        collector.add("5.10", report)
        return report, collector.tests["5.10", "t.py::test_x"]

    return judged


def test_a_failure_that_shows_what_is_recorded_is_known(listed):
    report, test = listed(("assert 0 == #",), "assert 0 == 17")
    assert (outcome_of(report), test.outcome, test.issue, test.listed, test.signatures) == ("known", "known", "a", "", ["assert 0 == #"])


def test_another_failure_of_a_listed_test_is_a_failure(listed):
    report, test = listed(("assert 0 == #",), "OSError: [Errno 98] Address already in use")
    assert (outcome_of(report), test.outcome, test.issue, test.listed) == ("failed", "failed", "", "a")
    assert dict(report.sections)["signature differs from known issue"].splitlines() == [
        "a: s", "seen:     OSError: EADDRINUSE Address already in use", "recorded: assert 0 == #"]
    kernel = KernelResult("5.10", "5.10", version="5.10.262-1", tests=[test])
    assert issue_lines([kernel]) == ["5.10: failed t.py::test_x: OSError: [Errno 98] Address already in use; "
                                     "signature differs from known issue a"]


def test_another_crash_of_a_listed_test_is_a_crash(listed):
    text = "the kernel crashed: BUG: kernel NULL pointer dereference, address: 0000000000000010\nRIP: 0010:{}+0x1d7/0x230"
    recorded = "BUG: kernel NULL pointer dereference, address: # in icmp_unreach"
    assert [outcome_of(listed((recorded,), text.format(name), "crashed")[0]) for name in ("icmp_unreach", "udp_sendmsg")] == [
        "known", "crashed"]


def test_a_listed_failure_of_which_nothing_is_recorded_is_known_and_said(listed):
    report, test = listed((), "assert 0 == 17")
    assert outcome_of(report) == "known"
    [line] = issue_lines([KernelResult("5.10", "5.10", version="5.10.262-1", tests=[test])])
    assert "no signature recorded" in line


@pytest.mark.parametrize("recorded, hung, outcome", [("hang: nothing came for # s", True, "known"), ("assert 0 == #", True, "lost"),
                                                     ("hang: nothing came for # s", False, "lost")])
def test_a_hang_may_be_the_issue_and_another_end_of_the_machine_is_not(listed, recorded, hung, outcome):
    report, _test = listed((recorded,), "the machine was lost: hang: nothing came for 120 s", "lost", hung)
    assert outcome_of(report) == outcome


def test_a_listed_test_that_passes_is_fixed(listed):
    report, _test = listed(("assert 0 == #",), None, outcome="passed")
    assert outcome_of(report) == "fixed"


def test_evidence_of_a_listed_failure_is_for_who_reads_of_it():
    """It takes longer than the test: 2.2 of 2.7 s."""
    run = SimpleNamespace(kernel=SimpleNamespace(version="5.10.262-1", release=""))
    session = object.__new__(KernelSession)
    session.run_of = lambda node: run
    node = SimpleNamespace(workerinput={}, config=SimpleNamespace(pluginmanager=SimpleNamespace(get_plugin=lambda name: session)))
    Recognise().pytest_configure_node(node)

    def wanted(parameters, **options):
        unset = dict.fromkeys(("report", "bug_report", "validate", "baseline"))
        test = f"tests/routing/test_tiny_mtu.py::test_packet_is_dropped_when_the_mtu_leaves_no_room_for_fragment_data[{parameters}]"
        return is_wanted(SimpleNamespace(nodeid=test, config=SimpleNamespace(option=SimpleNamespace(**{**unset, **options}),
                                                                             workerinput=node.workerinput)))

    assert (wanted("20-router"), wanted("20-host")) == (False, True)
    assert [wanted("20-router", **{option: "x"}) for option in ("report", "bug_report", "validate", "baseline")] == [True] * 4
