"""What a test does in a guest arrives as what it did: on the screen, in results.json, in junit.xml and in the exit status."""

import xml.etree.ElementTree as ET

import pytest

from report.reading import read
from tests.harness.sessions import CASES, KERNEL, OTHER, one_line, run

FILE = f"{CASES}/test_outcomes.py"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return run(tmp_path_factory.mktemp("mixed"), "test_outcomes.py", "-v", kernels=[KERNEL, OTHER])


@pytest.mark.parametrize("kernel", [KERNEL, OTHER])
def test_outcomes_are_the_tests_own(mixed, kernel):
    outcomes = mixed.outcomes(kernel)
    odd = {outcomes.pop(name) for name in list(outcomes) if name.startswith("test_odd_parameter[")}

    assert outcomes == {"test_passes": "passed", "test_has_a_temporary_directory": "passed", "test_fails": "failed",
                        "test_fails_in_setup": "failed", "test_skips": "skipped", "test_waits_for_ever": "failed"}
    assert odd == {"passed"}
    assert len(mixed.tests(kernel)) == 12
    assert mixed.status == mixed.results["run"]["exit_status"] == 1


def test_messages_say_why(mixed):
    tests = mixed.tests()
    assert tests["test_fails"]["message"] == "assert 2 == 1"
    assert tests["test_skips"]["message"] == "no such thing here"
    assert "fixture 'no_such_fixture' not found" in tests["test_fails_in_setup"]["message"]
    assert tests["test_passes"]["message"] == ""


def test_blocked_test_fails_with_where_it_waited(mixed):
    """pytest-timeout counts seconds of the guest's clock, so 30 of them cost next to nothing."""
    test = mixed.tests()["test_waits_for_ever"]
    assert "Timeout (>30.0s)" in test["message"]
    assert 30 <= test["virtual_s"] < 31
    assert ">       here.recv(1)" in mixed.output.splitlines()


def test_results_are_what_the_published_schema_says(mixed):
    """read() checks the file against report/results.schema.json, which takes no key that it does not name."""
    _run, kernels = read(mixed.report / "results.json")

    assert [kernel.spec for kernel in kernels] == [KERNEL, OTHER]
    failed = kernels[0].by_id()[next(name for name in kernels[0].by_id() if name.endswith("::test_fails"))]
    assert failed.traceback and failed.outcome == "failed"


def test_the_page_is_beside_the_results(mixed):
    assert "test_waits_for_ever" in (mixed.report / "index.html").read_text()


@pytest.mark.parametrize("kernel", [KERNEL, OTHER])
def test_results_name_the_machine(mixed, kernel):
    found = next(each for each in mixed.results["kernels"] if each["spec"] == kernel)
    assert found["release"].startswith(kernel + ".")
    assert found["version"].startswith(kernel + ".")
    assert found["package"].startswith(f"linux-image-{kernel}.")
    assert (found["clock"], found["accel"], found["error"]) == ("virtual", "tcg", None)
    assert found["qemu"].split(".")[0].isdigit()
    assert 0 < found["boot_s"] and 0 < found["first_test_s"] and 0 < found["peak_mb"] < 768


def test_measurements_are_kept_and_shown(mixed):
    assert mixed.tests()["test_passes"]["measurements"] == [{"name": "case.number", "value": 42.5, "unit": "s", "tolerance": 0.25}]
    assert one_line(mixed.output, "case.number").split() == ["case.number", "42.5", "42.5", "s"]


def test_junit_has_a_suite_per_kernel(mixed):
    suites = ET.parse(mixed.report / "junit.xml").getroot().findall("testsuite")
    assert [suite.get("name") for suite in suites] == [KERNEL, OTHER]
    for suite in suites:
        counts = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
        assert counts == {"tests": 12, "failures": 3, "errors": 0, "skipped": 1}
        cases = {case.get("name"): case for case in suite.findall("testcase")}
        assert len(cases) == 12
        assert cases["test_fails"].find("failure").get("message") == "assert 2 == 1"
        assert cases["test_skips"].find("skipped").text == "no such thing here"
        assert "test_odd_parameter[<&\"'>]" in cases


def test_table_has_a_sign_per_parameter_set(mixed):
    table = mixed.output.partition("tests by kernel")[2].partition("measurements")[0]
    assert one_line(table, "test_outcomes.py::test_odd_parameter").split()[1:] == ["✓✓✓✓✓✓"] * 2
    assert one_line(table, "test_outcomes.py::test_skips").split()[1:] == ["s", "s"]
    assert one_line(table, "test_outcomes.py::test_fails ").split()[1:] == ["F", "F"]
    one_line(mixed.output, f"{KERNEL}: 8 passed, 3 failed, 1 skipped (6.12.", "virtual clock, tcg, QEMU")


@pytest.mark.parametrize("kernel", [KERNEL, OTHER])
def test_verbose_names_kernel_outcome_and_time(mixed, kernel):
    one_line(mixed.output, f"{kernel}  passed   {FILE}::test_passes  (", " s")
    one_line(mixed.output, f"{kernel}  passed   {FILE}::test_odd_parameter[[x]::y/z]  (")
    one_line(mixed.output, f"{kernel}  failed   {FILE}::test_waits_for_ever  (30.", " s in ")


def test_summary_names_the_failed_tests(mixed):
    for kernel in (KERNEL, OTHER):
        one_line(mixed.output, f"FAILED {FILE}::test_fails on {kernel} - assert 2 == 1")


def test_file_that_cannot_be_imported_fails_on_each_kernel(tmp_path):
    """The tests of the other files run."""
    session = run(tmp_path, "", "-k", "never_runs or passes", kernels=[KERNEL, OTHER])
    assert session.status == 1
    for kernel in (KERNEL, OTHER):
        one_line(session.output, f"ERROR collecting {CASES}/test_uncollectable.py on {kernel} _")
        assert session.outcomes(kernel) == {"": "failed", "test_passes": "passed"}
        assert session.tests(kernel)[""]["message"] == "ModuleNotFoundError: No module named 'no_such_module'"


def test_x_stops_at_a_file_that_cannot_be_imported(tmp_path):
    session = run(tmp_path, "", "-x", "-k", "never_runs or passes")
    assert session.status == 1
    [kernel] = session.results["kernels"]
    assert session.outcomes() == {"": "failed"}
    assert kernel["unrun"] == [f"{FILE}::test_passes"]


def test_test_in_a_file_that_cannot_be_imported_shows_the_reason(tmp_path):
    """Pytest's own status for a word that names no test; not only that it names none."""
    session = run(tmp_path, "test_uncollectable.py::test_never_runs")
    assert session.status == 2
    assert "ModuleNotFoundError: No module named 'no_such_module'" in session.output


def test_x_stops_after_the_first_failure(tmp_path):
    session = run(tmp_path, "test_outcomes.py", "-x")
    assert session.status == 1
    assert session.outcomes() == {"test_passes": "passed", "test_has_a_temporary_directory": "passed", "test_fails": "failed"}
    [kernel] = session.results["kernels"]
    assert len(kernel["unrun"]) == 9 and session.results["run"]["unfinished"]
    one_line(session.output, f"{KERNEL}: 2 passed, 1 failed, 9 not run")


def test_options_of_the_environment_count_in_the_machines(tmp_path):
    """PYTEST_ADDOPTS, which pytest reads where it is started."""
    assert run(tmp_path, "test_outcomes.py", PYTEST_ADDOPTS="-k test_passes").outcomes() == {"test_passes": "passed"}


def test_a_run_of_skipped_tests_judges_nothing(tmp_path):
    session = run(tmp_path, "test_outcomes.py", "-k", "test_skips")
    assert session.status == session.results["run"]["exit_status"] == 6
    one_line(session.output, f"{KERNEL}: nothing was judged, every test was skipped: no such thing here")


def test_no_test_chosen_is_a_usage_error(tmp_path):
    session = run(tmp_path, "test_outcomes.py", "-k", "there_is_no_such_test")
    assert session.status == session.results["run"]["exit_status"] == 2
    assert session.outcomes() == {}


@pytest.mark.parametrize("option, place", [("--report", "file"), ("--report", "file/below"), ("--report", "/proc/kdrift"),
                                           ("--bug-report", "file")])
def test_report_that_cannot_be_written_is_a_usage_error(tmp_path, option, place):
    (tmp_path / "file").write_text("no directory")
    directory = tmp_path / place
    session = run(tmp_path, "test_outcomes.py", f"{option}={directory}")
    assert session.status == 2
    assert session.output.splitlines() == [one_line(session.output, f"ERROR: {option} {directory}: "), ""]
