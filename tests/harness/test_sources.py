"""Which of a machine's package sources is the Debian archive."""

import pytest

from common.errors import FetchError
from kernels.sources import Source, archives, read_sources
from tests.harness.debian_archive import configure


def test_archive_is_found_among_others_in_both_forms_of_list(tmp_path):
    (tmp_path / "a.list").write_text("deb [signed-by=/k/vendor.gpg] https://vendor.example/apt bookworm main\n"
                                     "# deb http://old.example/debian bookworm main\n"
                                     "deb [ arch=amd64 signed-by=/k/debian-archive-keyring.gpg ] http://m.example/d "
                                     "bookworm main contrib # near\n")
    (tmp_path / "b.sources").write_text("Types: deb deb-src\nURIs: http://s.example/d-security\n"
                                        "Suites: bookworm-security\nComponents: main\nSigned-By:\n -----BEGIN KEY-----\n .\n abc\n\n"
                                        "Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: sid\n"
                                        "Components: main\n")
    found = list(read_sources(tmp_path / "missing", tmp_path))

    assert found == [
        Source(("https://vendor.example/apt",), ("bookworm",), ("main",), "/k/vendor.gpg"),
        Source(("http://m.example/d",), ("bookworm",), ("main", "contrib"), "/k/debian-archive-keyring.gpg"),
        Source(("http://s.example/d-security",), ("bookworm-security",), ("main",), "-----BEGIN KEY-----\n .\n abc")]


def test_vendor_archive_is_not_taken_for_debian(tmp_path, monkeypatch):
    configure(tmp_path, monkeypatch, "deb [signed-by=/k/vendor.gpg] https://vendor.example/apt bookworm main\n"
              "deb http://m.example/debian bookworm main\ndeb http://m.example/debian-security bookworm-security main\n")

    found = archives()

    assert found["trixie"].uris == ("http://m.example/debian",)
    assert found["trixie-security"].uris == ("http://m.example/debian-security",)


def test_machine_without_debian_archive_asks_for_a_mirror(tmp_path, monkeypatch):
    configure(tmp_path, monkeypatch, "deb [signed-by=/k/vendor.gpg] https://vendor.example/apt bookworm main\n")

    with pytest.raises(FetchError, match="--mirror or KDRIFT_MIRROR"):
        archives()
    assert archives("http://m.example/debian")["sid"].uris == ("http://m.example/debian",)
    assert "trixie-security" not in archives("http://m.example/debian")
