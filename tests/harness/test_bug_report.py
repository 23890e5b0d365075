"""The folder of --bug-report: what is in it, what must not be in it, and that the case in it was verified."""

import base64
import hashlib
import zipfile

import pytest

from report.results import KernelResult, TestResult
from reproduce import folder as bug_folder, text
from reproduce.collect import Manifest
from reproduce.empty import Visit
from reproduce.folder import folder_name, kind_of
from reproduce.leaks import Private, of_this_machine
from tests.harness.sessions import CASES, KERNEL, one_line, run

PRIVATE = Private(frozenset({"build-7", "192.168.7.9", "52:54:00:12:34:56"}), frozenset({"/home/jo/kdrift"}))


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A session with one failed test on one kernel, and the folder that it left."""
    directory = tmp_path_factory.mktemp("reported")
    session = run(directory, "test_exported.py", "-k", "promise_is_broken and ipv4", f"--bug-report={directory}/bugs")
    [folder] = (directory / "bugs").iterdir()
    return session, folder


def test_case_is_verified_on_an_empty_machine(reported):
    session, folder = reported
    assert session.status == 1
    one_line(session.output, str(folder), "failing: REPRODUCED")
    transcript = (folder / "transcript-failing.txt").read_text()
    assert transcript.rstrip().endswith("\nREPRODUCED")
    assert f"Linux {session.releases[KERNEL]}" in transcript
    assert "failed:  linux-image-" in transcript


def test_folder_holds_report_case_topology_and_evidence(reported):
    _session, folder = reported
    names = {path.name for path in folder.iterdir()}
    assert names >= {"report.md", "repro.pyz", "setup.sh", "capture-client.pcap", "capture-server.pcap", "ladder.txt", "counters.txt",
                     "sysctls.txt", "results.json", "SHA256SUMS", "transcript-failing.txt", "topology.txt"}
    report = (folder / "report.md").read_text()
    for words in ("# Fails on linux-image-", ": Promise is broken [ipv4]\n", "One byte is two bytes.", "assert 1 == 2",
                  "- package: linux-image-", "CONFIG_HZ=",
                  "sudo python3 repro.pyz", "Verified: an empty machine with the failing kernel", "## Transcript on the failing kernel"):
        assert words in report


def test_sums_are_those_of_the_files(reported):
    _session, folder = reported
    sums = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert sums == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.name != "SHA256SUMS"}


def test_nothing_of_this_machine_is_in_it(reported):
    assert of_this_machine().found_in(reported[1]) == []


@pytest.mark.parametrize("planted", ["on Build-7 it fails", "from 192.168.7.9:80", "ether 52:54:00:12:34:56 brd",
                                     '"/home/jo/kdrift/tests/a.py"', "/home/jo/kdrift"])
def test_private_words_are_found_in_files_and_archives(tmp_path, planted):
    (tmp_path / "report.md").write_text(planted)
    with zipfile.ZipFile(tmp_path / "repro.pyz", "w") as archive:
        archive.writestr("a/b.py", f"# {planted}\n" * 100, zipfile.ZIP_DEFLATED)
    assert {line.split(": ")[0] for line in PRIVATE.found_in(tmp_path)} == {"report.md", "repro.pyz"}


def test_address_is_found_in_a_capture(tmp_path):
    (tmp_path / "capture.pcap").write_bytes(base64.b64decode("AAECAw==") + bytes.fromhex("525400123456") + bytes(9))
    assert PRIVATE.found_in(tmp_path) == ["capture.pcap: 52:54:00:12:34:56 in binary"]


@pytest.mark.parametrize("harmless", ["rebuild-7x", "1192.168.7.99", "/home/joanna/kdrift", "build-70"])
def test_longer_words_are_others(tmp_path, harmless):
    (tmp_path / "report.md").write_text(harmless)
    assert PRIVATE.found_in(tmp_path) == []


@pytest.mark.parametrize("verdict, wanted", [
    ("REPRODUCED", "Verified: an empty machine with the failing kernel"),
    ("NOT REPRODUCED", "**Not confirmed: on the failing kernel an empty machine prints NOT REPRODUCED instead of REPRODUCED.**"),
    ("CANNOT RUN", "**Not confirmed: on the failing kernel an empty machine prints CANNOT RUN instead of REPRODUCED.**"),
    ("", "an empty machine prints no verdict instead of REPRODUCED")])
def test_report_says_plainly_whether_it_reproduces(verdict, wanted):
    assert wanted in _report({"failing": Visit(verdict, "the transcript", "bookworm")})


def test_report_names_the_listed_fix_and_the_kernels_around_it():
    report = _report({"failing": Visit("REPRODUCED", "one", "trixie"), "good": Visit("NOT REPRODUCED", "two", "trixie")})
    for words in ("tcp: make probe0 timer handle expired user timeout", "bad from 5.10, good from 6.12.94", "this run: known on 6.12.90-2",
                  "Verified: an empty machine with the good kernel", "## Transcript on the good kernel"):
        assert words in report


def _report(visits):
    name = "tests/keepalive/test_zero_window.py::test_expired_user_timeout_ends_zero_window_probing_within_200_ms[ipv4]"
    test = TestResult(name, "known", promise="It ends.", message="assert 9 == 1", issue="tcp-probe0-expired-user-timeout")
    kernel = KernelResult("6.12", "6.12", "6.12.90", "linux-image-6.12.90", "6.12.90-2", tests=[test])
    return text.report(test, kernel, None, [kernel], Manifest(name, "m", "f", "It ends."), visits)


@pytest.mark.parametrize("there, why, script", [
    (Visit("", "case: x\n#!/bin/sh\n# a\nip netns add a\n-- the end of setup.sh\n"
               "the machine ended without a verdict; the console:\n[ 1.0] x", "trixie"),
     "", "#!/bin/sh\n# a\nip netns add a\n"),
    (Visit("", "case: x\n#!/bin/sh\n# a\nthe machine ended without a verdict; the console:\n[ 1.0] x", "trixie"), "[ 1.0] x", None),
    (Visit("CANNOT RUN", "case: x\n\nCANNOT RUN: the kernel has no ipip tunnels", "trixie"), "CANNOT RUN: the kernel has no ipip tunnels",
     None),
    ("QEMU did not start", "QEMU did not start", None),
])
def test_what_this_kernel_cannot_set_up_is_recorded_on_the_failing_one(tmp_path, monkeypatch, there, why, script):
    (tmp_path / "repro.pyz").write_text("print('CANNOT RUN: the kernel has no ipip tunnels'); raise SystemExit(2)")
    monkeypatch.setattr(bug_folder, "_visit", lambda *words: there)

    assert bug_folder.write_setup(None, tmp_path, None, "a kernel", None) == why
    assert bug_folder.write_setup(None, tmp_path, None, None, None) == "CANNOT RUN: the kernel has no ipip tunnels"
    written = tmp_path / "setup.sh"
    assert (written.read_text() if written.exists() else None) == script


@pytest.mark.parametrize("message, kind", [
    ("assert 1 == 2", "AssertionError"), ("AssertionError: no\nassert 1 == 2", "AssertionError"),
    ("netns.errors.ExpectationFailed: after 1 s", "ExpectationFailed"), ("Failed: on purpose", "Failed"),
    ("ConnectionRefusedError: [Errno 111] Connection refused", "ConnectionRefusedError ECONNREFUSED")])
def test_kind_of_a_failure_is_read_from_its_message(message, kind):
    assert kind_of(message) == kind


def test_folder_is_named_after_test_and_kernel():
    assert folder_name(f"{CASES}/test_exported.py::test_a[ipv4-b c]", "6.12") == "harness-cases-test_exported-a-ipv4-b-c-on-6.12"
