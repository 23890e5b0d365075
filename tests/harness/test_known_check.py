"""`./kdrift known`: what is recorded is recognised, and what is listed wrongly is found."""
import json

import pytest

from cli.__main__ import main
from report.check import BATCH, OPEN, PROVED, WRONG, batches, judge, spans
from report.known import Affected, Issue, KnownIssuesError, read_signatures
from report.record import record, rewrite, signatures_of
from report.results import KernelResult, TestResult

SHOWS = "assert 0 == #"
PACKAGES = ["5.10.223-1", "5.10.251-5", "6.12.43-1~bpo12+1", "6.12.69-1~bpo12+1", "6.12.74-2~bpo12+1", "6.12.85-1~bpo12+1", "7.2.13-1"]


def issue(*kernels, name="a", signatures=(SHOWS,), tests=("t.py::test_x*",)):
    return Issue(name, "s", tests, tuple(Affected(*each.split("..")) for each in kernels), "0" * 12, signatures=signatures)


def ends(*kernels):
    return [(span.before, span.bad, span.good) for span in spans(issue(*kernels), PACKAGES)]


def test_the_ends_of_a_range_are_the_packages_beside_them():
    assert ends("5.10..5.10.251", "6.2..6.12.85") == [(None, "5.10.223-1", "5.10.251-5"), (None, "6.12.74-2~bpo12+1", "6.12.85-1~bpo12+1")]


def test_where_a_stable_release_brought_the_bug_the_one_before_it_is_tried_too():
    assert ends("6.12.69..6.12.85", "7.2.0..7.3") == [("6.12.43-1~bpo12+1", "6.12.74-2~bpo12+1", "6.12.85-1~bpo12+1"),
                                                      (None, "7.2.13-1", None)]


@pytest.mark.parametrize("order", [1, -1])
def test_of_one_version_built_twice_the_original_is_run_whatever_the_order(order):
    packages = ["6.1.174-1", "6.1.174-1~deb11u1", "6.1.176-1", "6.1.176-1~deb11u1"][::order]
    [span] = spans(issue("5.11..6.1.176"), packages)
    assert (span.bad, span.good) == ("6.1.174-1", "6.1.176-1")


def test_an_open_range_has_a_last_package_and_no_good_one():
    assert ends("5.10..") == [(None, "7.2.13-1", None)]


def test_a_range_between_packages_has_none():
    assert ends("6.12.70..6.12.71")[0][1] is None


@pytest.mark.parametrize("bad, good, before, state, why", [
    (SHOWS, "", "", PROVED, "shows on 6.12.74-2~bpo12+1, not on 6.12.43-1~bpo12+1, 6.12.85-1~bpo12+1"),
    ("", "", "", WRONG, "too wide: passes on 6.12.74-2~bpo12+1: test_x[1]"),
    (SHOWS, SHOWS, "", WRONG, "too narrow: also shows on 6.12.85-1~bpo12+1: test_x[1]"),
    (SHOWS, "", SHOWS, WRONG, "too narrow: also shows on 6.12.43-1~bpo12+1: test_x[1]"),
    ("assert [] == [#]", "", "", WRONG, "different failure on 6.12.74-2~bpo12+1: test_x[1]"),
    (SHOWS, "assert [] == [#]", "", OPEN, "shows on 6.12.74-2~bpo12+1; different failure on 6.12.85-1~bpo12+1: test_x[1]"),
    (None, "", "", OPEN, "no result for 6.12.74-2~bpo12+1"),
    (SHOWS, None, "", OPEN, "shows on 6.12.74-2~bpo12+1; no result for 6.12.85-1~bpo12+1"),
])
def test_a_range_is_judged_by_what_shows_at_its_ends(bad, good, before, state, why):
    [span] = spans(issue("6.12.69..6.12.85"), PACKAGES)
    seen = zip(("6.12.74-2~bpo12+1", "6.12.85-1~bpo12+1", "6.12.43-1~bpo12+1"), (bad, good, before), strict=True)
    stored = {version: {} if shown is None else results("t.py::test_x[1]", shown) for version, shown in seen}

    assert judge(span, stored) == (state, why)


def results(test, shown):
    return {test: TestResult(test, "failed" if shown else "passed", message=shown, signatures=[shown] if shown else [])}


def test_where_another_entry_makes_the_test_fail_nothing_is_said_of_this_one():
    [span] = spans(issue("5.10..5.10.251"), PACKAGES)
    other = TestResult("t.py::test_x", "known", signatures=["assert 1 == #"], issue="b")
    stored = {"5.10.223-1": results("t.py::test_x", SHOWS), "5.10.251-5": {"t.py::test_x": other}}
    assert judge(span, stored) == (OPEN, "shows on 5.10.223-1; hidden by another entry on 5.10.251-5: test_x")


def test_without_a_signature_nothing_is_proved():
    [span] = spans(issue("5.10..5.10.251", signatures=()), PACKAGES)
    assert judge(span, {"5.10.223-1": results("t.py::test_x", SHOWS), "5.10.251-5": results("t.py::test_x", "")})[0] == OPEN


def test_one_boot_serves_ten_entries_and_what_is_stored_is_not_run_again():
    wanted = [span for number in range(12)
              for span in spans(issue("5.10..5.10.251", name=str(number), tests=(f"t.py::test_{number}",)), PACKAGES)]
    tests = [f"t.py::test_{number}" for number in range(12)]
    found = batches(wanted, tests, {})
    assert [(batch.version, len(batch.issues), len(batch.tests)) for batch in found] == [
        ("5.10.223-1", BATCH, BATCH), ("5.10.223-1", 2, 2), ("5.10.251-5", BATCH, BATCH), ("5.10.251-5", 2, 2)]

    stored = {"5.10.223-1": {test: TestResult(test) for test in tests}, "5.10.251-5": {tests[3]: TestResult(tests[3])}}
    assert [(batch.version, "3" in batch.issues) for batch in batches(wanted, tests, stored)] == [
        ("5.10.251-5", False), ("5.10.251-5", False)]


def test_what_is_recorded_is_recognised(tmp_path):
    message = "AssertionError: assert 0 == 17\n +  where 0 = f()"
    kernel = KernelResult("5.10", "5.10", version="5.10.223-1", tests=[
        TestResult("t.py::test_x[1]", "known", message=message, traceback=">       assert f() == 17\nE       AssertionError"),
        TestResult("t.py::test_y", "failed", message="other")])
    new, gone = rewrite([kernel], [issue("5.10..5.10.251", signatures=())], tmp_path, anew=False)
    assert gone == [] and new == ["a: AssertionError: assert 0 == #; at: assert f() == 17 (5.10.223-1)"]
    recorded = read_signatures(tmp_path / "known_signatures.json")
    assert recorded == {"a": {"AssertionError: assert 0 == #; at: assert f() == 17": ["5.10.223-1"]}}

    assert issue("5.10..", signatures=tuple(recorded["a"])).is_shown_by("AssertionError: assert 0 == #; at: assert f() == 17")
    assert not issue("5.10..", signatures=tuple(recorded["a"])).is_shown_by("TimeoutError: timed out; at: f()")
    assert rewrite([kernel], [issue("5.10..5.10.251")], tmp_path, anew=False) == ([], []), "the same again is nothing new"


def test_only_kernels_that_have_the_bug_are_recorded_and_old_entries_go():
    failed = TestResult("t.py::test_x", "failed", signatures=[SHOWS])
    kernels = [KernelResult("a", "a", version=version, tests=[failed]) for version in ("5.10.251-5", "5.10.223-1")]
    assert record(kernels, [issue("5.10..5.10.251")], {"gone": {SHOWS: ["6.1"]}}) == {"a": {SHOWS: ["5.10.223-1"]}}


def test_anew_replaces_what_the_same_kernel_showed_of_the_same_entry(tmp_path):
    file, older, other = tmp_path / "known_signatures.json", "5.10.218-1", "5.10.223-1"
    file.write_text(json.dumps({"a": {"the old text": [older, other], "of this one alone": [older]}, "b": {"the old text": [older]}}))
    kernel = KernelResult("k", "k", version=older,
                          tests=[TestResult("t.py::test_x", "failed", signatures=[SHOWS]), TestResult("t.py::test_y", "passed")])
    entries = [issue("5.10..5.10.251"), issue("5.10..5.10.251", name="b", tests=("t.py::test_y",))]

    assert rewrite([kernel], entries, tmp_path, anew=True) == ([f"a: {SHOWS} ({older})"], [f"a: of this one alone ({older})"])
    assert read_signatures(file) == {"a": {SHOWS: [older], "the old text": [other]}, "b": {"the old text": [older]}}


@pytest.mark.parametrize("test, shown", [
    (TestResult("t", "passed"), []),
    (TestResult("t", "lost", message="the machine was lost: QEMU ended: killed", signatures=["QEMU ended: killed"]), []),
    (TestResult("t", "lost", message="the machine was lost: hang: nothing came", signatures=["hang: nothing came"]),
     ["hang: nothing came"]),
    (TestResult("t", "known", message="the machine was lost: hang: nothing came", signatures=["hang: nothing came", SHOWS]), [SHOWS]),
])
def test_a_hang_that_did_not_come_again_is_not_what_the_test_shows(test, shown):
    assert signatures_of(test) == shown


@pytest.mark.parametrize("text", ["[1]", '{"a": "b"}', '{"a": {"b": [1]}}', "{", "[" * 100_000])
def test_a_broken_file_is_named_in_one_line(tmp_path, text):
    file = tmp_path / "known_signatures.json"
    file.write_text(text)
    with pytest.raises(KnownIssuesError, match=r"^known_signatures.json: ") as failure:
        read_signatures(file)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("words, complaint", [
    (["--record"], "--record needs the results.json of a run"), (["--record", "/nonexistent"], "/nonexistent: No such file or directory"),
    (["--check", "tcp-rmem-min"], "--check needs --report DIR, where results are kept"),
    (["tcp-rmem-min"], "names are for --record and --check"),
])
def test_a_wrong_use_is_one_line_and_status_2(words, complaint, capsys):
    assert main(["known", *words]) == 2
    assert capsys.readouterr().err == f"kdrift: {complaint}\n"


def test_an_unknown_entry_is_refused(tmp_path, capsys):
    assert main(["known", "--check", "nothing", "--report", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "kdrift: nothing is no entry of known_issues.toml\n"


@pytest.mark.parametrize("anew", [False, True])
def test_results_without_a_listed_failure_take_nothing_away(tmp_path, anew):
    (tmp_path / "known_signatures.json").write_text(json.dumps({"a": {SHOWS: ["5.10.223-1"]}}))
    with pytest.raises(KnownIssuesError, match="nothing recorded"):
        rewrite([], [issue("5.10..")], tmp_path, anew)
    assert read_signatures(tmp_path / "known_signatures.json")
