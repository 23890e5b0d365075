"""`./kdrift kernels` shows what can be had and what is cached, without a network if need be."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli.__main__ import main
from kernels.cache import Cache
from kernels.debian import key_of
from kernels.packages import Index, Package

ROOT = Path(__file__).parents[2]
PACKAGES = [
    Package("linux-image-6.1.0-8-cloud-amd64", "6.1.98-1", "bookworm", 26_000_000, "a1", ()),
    Package("linux-image-6.1.0-9-cloud-amd64", "6.1.99-1", "bookworm", 26_500_000, "a2", ()),
    Package("linux-image-6.1.0-9-rt-amd64", "6.1.99-1", "bookworm", 70_000_000, "a3", ()),
    Package("linux-image-6.12.7-cloud-amd64", "6.12.7-1", "trixie", 34_700_000, "a4", ())]


FACTS = {"package": PACKAGES[0].name, "version": "6.1.98-1", "release": "6.1.0-8-cloud-amd64", "suite": "bookworm"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with an index, the older 6.1 kernel, an image and a state of it."""
    monkeypatch.setenv("KDRIFT_CACHE", str(tmp_path))
    index = Index(PACKAGES, 0.0, {})
    with Cache() as cache:
        index.save(cache.area("apt") / "index.json")
        key = key_of(index.exact("6.1.98-1"))
        for area, size, meta in (("kernels", 300_000, FACTS),
                                 ("images", 200_000, {"kernel": key}),
                                 ("states", 100_000, {"kernel": key})):
            cache.build(area, key, lambda path, size=size: (path / "f").write_bytes(b"x" * size) and None, meta)
    return cache


def rows(capsys, *arguments: str) -> list[dict]:
    assert main(["kernels", "--offline", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_newest_of_each_series_and_what_is_cached(cache, capsys):
    listed = rows(capsys)

    assert [(row["series"], row["version"], row["cached"]) for row in listed] == [
        ("6.1", "6.1.98-1", True), ("6.1", "6.1.99-1", False), ("6.12", "6.12.7-1", False)]
    assert listed[2]["download"] == 34_700_000 and listed[2]["suite"] == "trixie"


def test_all_lists_every_flavour(cache, capsys):
    assert [row["package"] for row in rows(capsys, "--all")] == [
        PACKAGES[0].name, PACKAGES[2].name, PACKAGES[1].name, PACKAGES[3].name]


def test_sizes_are_those_on_disk(cache, capsys):
    row = rows(capsys)[0]

    for name, size in (("package_size", 300_000), ("image_size", 200_000), ("state_size", 100_000)):
        assert size <= row[name] < size + 20_000


def test_table_fits_one_line_per_kernel(cache, capsys):
    assert main(["kernels", "--offline"]) == 0
    lines = capsys.readouterr().out.splitlines()

    assert lines[0].split() == ["series", "version", "package", "suite", "download", "cached", "image", "state"]
    assert len(lines) == 4 and "34.7 MB" in lines[3]


def test_kernel_that_the_archive_lost_is_still_listed(cache, capsys):
    (cache.area("apt") / "index.json").unlink()

    assert [row["package"] for row in rows(capsys)] == [PACKAGES[0].name]


def test_prune_says_what_was_freed_and_what_is_in_use(cache, capsys):
    key = cache.entries("states")[0].key
    with Cache() as user:
        user.entry("states", key)
        assert main(["kernels", "--prune"]) == 0
    lines = capsys.readouterr().out.splitlines()

    assert lines[0] == "0.5 MB freed" and lines[1:] == [f"states/{key} is in use: left alone"]


@pytest.mark.parametrize("arguments", [["--nonsense"], ["6.12"], ["--mirror"]])
def test_bad_usage_exits_with_2(arguments):
    result = subprocess.run([sys.executable, "-m", "cli", "kernels", *arguments], capture_output=True, text=True, cwd=ROOT)

    assert result.returncode == 2
    assert result.stderr.startswith("kdrift: ") and result.stderr.endswith("; see ./kdrift kernels --help\n")


def test_without_index_and_network_it_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KDRIFT_CACHE", str(tmp_path))

    assert main(["kernels", "--offline"]) == 3
    assert "no package index in the cache" in capsys.readouterr().err
