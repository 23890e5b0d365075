"""The columns' labels: unique, and by what they name. Results are kept by them, so two kernels of one label would become one."""

import os
import shutil
from argparse import Namespace
from pathlib import Path

import pytest

from cli.merge import merge
from hosts.session import HostRun
from hosts.ssh import Host
from kernels.cache import Cache, default_root
from kernels.grammar import parse
from report.labels import LONGEST, LabelError, Named, check_label, labels_of, same_kernels, split_label
from report.reading import ResultsError, read
from report.results import KernelResult, TestResult, write_json
from session.plugin import Report
from session.runs import KernelRun, find_kernels, name_columns
from tests.harness.debian_archive import write_image
from tests.harness.sessions import CASES, KERNEL, OTHER, one_line, run

RUN = {"started": "2026-01-01T00:00:00+00:00", "duration_s": 1.5, "arguments": [], "python": "3.11.2", "exit_status": 0}
RELEASE = "6.12.0-kdrift-test"


def image(path, key=""):
    return Named(str(path), Path(path), RELEASE, key or str(path))


@pytest.mark.parametrize(("paths", "labels"), [
    (["/k/A/bzImage"], ["bzImage"]),
    (["/k/A/bzImage", "/k/B/bzImage"], ["A/bzImage", "B/bzImage"]),
    (["/k/A/bzImage", "/k/A/vmlinuz"], ["bzImage", "vmlinuz"]),
    (["/k/A/x86/boot/bzImage", "/k/B/x86/boot/bzImage"], ["A/.../bzImage", "B/.../bzImage"]),
    (["/k/A/x/bzImage", "/k/B/x/bzImage", "/k/B/y/bzImage"], ["A/x/bzImage", "B/x/bzImage", "B/y/bzImage"]),
    (["/k/A/bzImage", "/k/A/../B/bzImage"], ["A/bzImage", "B/bzImage"]),
], ids=lambda value: " ".join(value))
def test_images_of_one_name_are_told_apart_by_the_shortest_part_of_their_paths(paths, labels):
    assert labels_of([image(path) for path in paths]) == labels


def test_one_path_with_other_modules_is_told_apart_by_its_contents():
    first, second = (image("/k/bzImage", key) for key in ("0123456789abcdef", "fedcba9876543210"))

    assert labels_of([first, second]) == ["bzImage 01234567", "bzImage fedcba98"]


def test_machines_of_one_name_are_told_apart_by_their_releases():
    assert labels_of([Named("debian12", release="6.1.0-57"), Named("debian12", release="6.12.118")]) == [
        "debian12 6.1.0-57", "debian12 6.12.118"]


def test_a_kernel_given_twice_is_two_columns():
    twice = [Named("6.12", release=RELEASE, key="a")] * 2

    assert labels_of(twice) == ["6.12", "6.12 (2)"]
    assert labels_of([image("/k/bzImage", "a")] * 3) == ["bzImage", "bzImage (2)", "bzImage (3)"]
    assert labels_of([Named("6.12 (2)"), *twice]) == ["6.12 (2)", "6.12", "6.12 (3)"]


def test_one_kernel_in_other_words_keeps_its_labels_and_is_said():
    columns = [Named("6.12", key="a"), Named("6.12.118-1", key="a"), Named("6.1", key="b")]

    assert labels_of(columns) == ["6.12", "6.12.118-1", "6.1"]
    assert same_kernels(labels_of(columns), columns) == ["6.12 and 6.12.118-1 are the same kernel"]


@pytest.mark.parametrize(("word", "what", "label"), [
    ("6.12", "6.12", ""), ("6.12=new", "6.12", "new"), ("6.1.187-1=old one", "6.1.187-1", "old one"),
    ("linux-image-6.1.0-9-amd64=x", "linux-image-6.1.0-9-amd64", "x"),
    ("a=b/bzImage", "a=b/bzImage", ""), ("a=b/bzImage=c", "a=b/bzImage", "c"), ("bzImage=c", "bzImage=c", ""),
    ("a=b/bzImage,modules=mods", "a=b/bzImage,modules=mods", ""), ("a=b/bzImage,modules=mods=c", "a=b/bzImage,modules=mods", "c"),
])
def test_a_specification_may_end_with_a_label(tmp_path, monkeypatch, word, what, label):
    """After the last "=", where the whole is not understood: a path may hold one."""
    monkeypatch.chdir(tmp_path)
    for place in ("a=b/bzImage", "bzImage=c"):
        write_image(tmp_path / place, RELEASE)
    (tmp_path / "mods").mkdir()

    assert split_label(word, parse) == (what, label)


def test_a_host_may_have_a_label():
    assert split_label("root@lab1:2222=lab", Host.parse) == ("root@lab1:2222", "lab")


@pytest.mark.parametrize("word", ["6.12=", "6.12= ", "6.12=a\nb", "6.12=\x1b[31m", "6.12= a", f"6.12={'x' * (LONGEST + 1)}",
                                  "nowhere/bzImage=old", "nowhere/bzImage,modules=mods", "banana=x", "6.12=a=b", "6.12=\udcff"])
def test_what_cannot_be_a_label_is_refused_in_one_line(word):
    with pytest.raises(ValueError) as failure:
        split_label(word, parse)
    assert str(failure.value).isprintable()


@pytest.mark.parametrize("columns", [
    [Named("6.1", chosen="x"), Named("6.12", chosen="x")], [Named("6.1", chosen="6.12"), Named("6.12")],
], ids=["chosen twice", "another's name"])
def test_a_label_that_is_taken_is_refused(columns):
    with pytest.raises(LabelError, match="duplicate label"):
        labels_of(columns)


def test_labels_follow_the_columns_whatever_they_are():
    runs = [KernelRun("0", "6.12", chosen=""), HostRun("1", "lab1"), HostRun("2", "6.12"), KernelRun("3", "6.12")]

    name_columns(runs, ["new", "lab"])

    assert [run.label for run in runs] == ["new", "lab", "6.12", "6.12 (2)"]


@pytest.mark.parametrize(("labels", "complaint"), [(["a", "b"], "2 labels for 1 columns"), (["a"], "two labels, old and a")])
def test_a_label_too_many_is_a_usage_error(labels, complaint):
    run = KernelRun("0", "6.12", chosen="" if len(labels) > 1 else "old")
    with pytest.raises(pytest.UsageError, match=complaint):
        name_columns([run], labels)


def test_links_to_one_image_are_one_kernel(tmp_path, monkeypatch):
    """Two columns, each by its own name, that have the key of the same contents."""
    write_image(tmp_path / "A/bzImage", RELEASE)
    shutil.copytree(tmp_path / "A", tmp_path / "B")
    os.utime(tmp_path / "B/bzImage", (0, 0))
    write_image(tmp_path / "C/bzImage", RELEASE, seed=1)
    (tmp_path / "newest").symlink_to("A")
    monkeypatch.setenv("KDRIFT_CACHE", str(tmp_path / "cache"))
    options = Namespace(clock="virtual", offline=True, mirror=None, allow_unverified=False)

    with Cache() as cache:
        runs = find_kernels([f"{tmp_path}/{name}/bzImage" for name in ("A", "B", "C", "newest")], options, cache, boots_here=False)
        assert len(cache.prune()[1]) == 2, "what waits for a slot stays"
    name_columns(runs, [])

    assert [run.label for run in runs] == ["A/bzImage", "B/bzImage", "C/bzImage", "newest/bzImage"]
    assert same_kernels([run.label for run in runs], [run.named() for run in runs]) == [
        "A/bzImage and B/bzImage and newest/bzImage are the same kernel"]
    builds = [run.kernel.build for run in runs]
    assert builds[0] == builds[1] == builds[3] != builds[2]


def results(path, label, build, *tests, release=RELEASE):
    write_json(path, RUN, [KernelResult(label, label, release=release, build=build, tests=[TestResult(test) for test in tests])])
    return path


def test_two_kernels_of_one_label_are_not_merged(tmp_path):
    """They have one release and other contents; the line says what to type."""
    one, other = results(tmp_path / "a.json", "bzImage", "1", "t.py::test_a"), results(tmp_path / "b.json", "bzImage", "2", "t.py::test_b")

    with pytest.raises(ResultsError) as failure:
        merge([one, other])
    assert str(failure.value) == (f"{other}: bzImage is another kernel ({RELEASE}, build 2) than in another file ({RELEASE}, build 1): "
                                  f"give it another label, {other}=LABEL")

    _run, kernels = merge([one, f"{other}=new"])
    assert [kernel.label for kernel in kernels] == ["bzImage", "new"]


def test_tests_of_one_build_come_together(tmp_path):
    files = [results(tmp_path / f"{number}.json", "bzImage", "1", f"t.py::test_{number}") for number in range(2)]

    _run, [kernel] = merge(files)

    assert len(kernel.tests) == 2


@pytest.mark.parametrize(("labels", "complaint"), [
    ("a,b", r"2 labels for 1 kernels \(bzImage\)"), ("", "empty label"), ("a\tb", "unprintable characters"),
])
def test_labels_that_do_not_fit_a_file_are_refused(tmp_path, labels, complaint):
    file = results(tmp_path / "a.json", "bzImage", "1")
    with pytest.raises(ResultsError, match=complaint):
        merge([f"{file}={labels}"])


def test_a_file_whose_name_holds_an_equals_sign_is_read(tmp_path):
    _run, [kernel] = merge([results(tmp_path / "a=b", "6.12", "1")])
    assert kernel.label == "6.12"


def test_a_baseline_of_the_same_label_is_another_column(tmp_path):
    file = results(tmp_path / "a.json", "6.12", "1")

    [baseline] = Report.read_baseline(str(file), ["6.12", "6.12 (baseline)"])

    assert baseline.label == "6.12 (baseline) (2)"
    assert read(file)[1][0].label == "6.12"


def test_a_label_of_the_longest_length_is_one():
    assert check_label("x" * LONGEST)


@pytest.fixture(scope="module")
def bad_and_good(tmp_path_factory):
    """Two images of one file name, with their modules: test_crash.py crashes the first and not the second."""
    directory, specs = tmp_path_factory.mktemp("images"), []
    for name, series in (("bad", KERNEL), ("good", OTHER)):
        package = sorted(default_root().glob(f"kernels/*/boot/vmlinuz-{series}.*"))[-1]
        (directory / name).mkdir()
        (directory / name / "bzImage").symlink_to(package)
        specs.append(f"{directory}/{name}/bzImage,modules={package.parents[1]}")
    return specs


@pytest.mark.parametrize("new, status, found, change", [
    ("bad", 1, "1 regression, 3 tests: 2 same, 1 regression", "regression  {test}: passed -> crashed: the kernel crashed: "),
    ("good", 0, "no regression, 3 tests: 2 same, 1 fixed", "fixed       {test}: crashed -> passed"),
], ids=["bad is new", "good is new"])
def test_two_images_of_one_name_are_judged_in_the_order_given(tmp_path, bad_and_good, new, status, found, change):
    """The verdict is about the second; a test that fails on the first alone is fixed."""
    bad, good = bad_and_good
    session = run(tmp_path, "test_crash.py", "--validate", "--confirm=0", kernels=[good, bad] if new == "bad" else [bad, good])

    old = "good" if new == "bad" else "bad"
    verdict = session.output.rpartition("= verdict =")[2]
    one_line(verdict, f"{old}/bzImage -> {new}/bzImage: {found}")
    one_line(verdict, change.format(test=f"{CASES}/test_crash.py::test_crashes_the_kernel"))
    assert session.outcomes("bad/bzImage") == {"test_before": "passed", "test_crashes_the_kernel": "crashed", "test_after": "passed"}
    assert set(session.outcomes("good/bzImage").values()) == {"passed"}
    assert session.status == status
