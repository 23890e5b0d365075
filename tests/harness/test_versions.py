"""Which kernels stand between two versions."""
import shutil
from types import SimpleNamespace

import pytest

from common.errors import FetchError, SpecError
from kernels.grammar import parse
from kernels.packages import Index, Package
from kernels.spec import resolve
from kernels.versions import Available, between, in_archive, in_directory, several_series
from tests.harness.debian_archive import own_cache, write_deb, write_image, write_modules


def available(*versions):
    return [Available(version, version) for version in versions]


def deb(directory, release, version, parts=("image",), architecture="amd64"):
    """A kernel as one package, or as an image and modules, as Ubuntu builds it."""
    for part in parts:
        root = directory / f"{part}-{release}"
        if part in ("image", "binary"):
            write_image(root / f"boot/vmlinuz-{release}", release)
        if part == "modules" or len(parts) == 1:
            write_modules(root, release)
        write_deb(directory, f"linux-{part}-{release}", version, root, architecture=architecture)
        shutil.rmtree(root)


def test_kernels_between_two_are_in_the_order_of_their_versions_whatever_they_are_called():
    versions = ("6.12.107-1", "6.12.90-2", "6.12.94-1~bpo12+1", "6.12.94-1", "6.1.190-1", "6.12.85-1", "7.0~rc1-1", "7.0.1-1")
    found = between(available(*versions), "6.12.85-1", "7.0.1-1")
    assert [each.version for each in found] == ["6.12.90-2", "6.12.94-1~bpo12+1", "6.12.94-1", "6.12.107-1", "7.0~rc1-1"]


def test_a_file_is_taken_before_the_archive_for_its_version():
    mine = Available("6.12.90-2", "/mine/linux-image.deb")
    assert between([*available("6.12.90-2"), mine], "6.12.85-1", "6.12.94-1") == [mine]


def test_versions_of_several_series_are_told():
    assert several_series(["6.1.176-1", "6.12.43-1"]) == ["6.1", "6.12"]
    assert several_series(["6.12.43-1", "6.12.57-1"]) == []


def test_a_directory_has_kernels_of_one_package_and_of_several(tmp_path, monkeypatch):
    deb(tmp_path, "6.12.90-cloud-amd64", "6.12.90-2")
    deb(tmp_path, "6.8.0-45-generic", "6.8.0-45.45", ("image", "modules"))
    deb(tmp_path, "6.8.0-47-generic", "6.8.0-47.47", ("image", "modules"))
    (tmp_path / "notes.txt").write_text("no package")
    found = {each.version: each.spec for each in in_directory(tmp_path)}
    assert sorted(found) == ["6.12.90-2", "6.8.0-45.45", "6.8.0-47.47"]
    with own_cache(tmp_path / "cache", monkeypatch) as cache:
        for version, release in (("6.12.90-2", "6.12.90-cloud-amd64"), ("6.8.0-45.45", "6.8.0-45-generic")):
            kernel = resolve(found[version], cache)
            assert (kernel.release, kernel.version, kernel.modules.name) == (release, version, release)


def test_a_kernel_for_other_processors_is_left_out(tmp_path):
    deb(tmp_path, "6.12.90-cloud-amd64", "6.12.90-2")
    deb(tmp_path, "6.12.91-cloud-arm64", "6.12.91-1", architecture="arm64")
    assert [each.version for each in in_directory(tmp_path)] == ["6.12.90-2"]


def test_an_rpm_kernel_is_named_with_all_its_modules(tmp_path):
    for name in ("kernel-core-6.12.5-200.fc41", "kernel-modules-core-6.12.5-200.fc41", "kernel-modules-6.12.5-200.fc41",
                 "kernel-modules-6.12.6-200.fc41", "kernel-core-6.12.6-200.fc41", "kernel-devel-6.12.6-200.fc41"):
        (tmp_path / f"{name}.x86_64.rpm").write_text("")
    found = {each.version: parse(each.spec) for each in in_directory(tmp_path)}
    assert sorted(found) == ["6.12.5-200.fc41", "6.12.6-200.fc41"]
    spec = found["6.12.5-200.fc41"]
    assert spec.path.name == "kernel-core-6.12.5-200.fc41.x86_64.rpm"
    assert sorted(path.name[:19] for path in spec.modules) == ["kernel-modules-6.12", "kernel-modules-core"]


@pytest.mark.parametrize("make, why", [(lambda path: path.mkdir(), "has no .deb or .rpm with a kernel"),
                                       (lambda path: None, "No such file")], ids=["empty", "absent"])
def test_a_directory_without_kernels_is_refused(make, why, tmp_path):
    make(tmp_path / "debs")
    with pytest.raises(SpecError, match=why):
        in_directory(tmp_path / "debs")


def test_a_damaged_package_is_refused(tmp_path):
    (tmp_path / "linux-image.deb").write_text("no package")
    with pytest.raises(FetchError, match="truncated or damaged"):
        in_directory(tmp_path)


class ArchiveOf:
    """Stand-in for kernels.debian.Archive."""

    def __init__(self, *listed, cached=(), offline=False, error=None):
        self.listed, self.cached, self.offline, self.error, self.said = listed, cached, offline, error, []
        self.progress = SimpleNamespace(say=self.said.append)

    def kernels(self):
        return [("key", {"version": version, "package": name}) for name, version in self.cached]

    def index(self):
        if self.error:
            raise self.error
        packages = [Package(name, version, "trixie", 1, "0" * 64, ()) for name, version in self.listed]
        return Index(packages, 0, {})


CLOUD, OLD, REALTIME = (("linux-image-6.12.9-cloud-amd64", "6.12.9-1"), ("linux-image-6.12.8-amd64", "6.12.8-1"),
                        ("linux-image-6.12.7-rt-amd64", "6.12.7-1"))


def test_the_archive_and_the_cache_are_known_without_realtime_kernels():
    assert in_archive(ArchiveOf(CLOUD, REALTIME, cached=[OLD, REALTIME])) == available("6.12.9-1", "6.12.8-1")


def test_offline_the_cache_alone_is_known():
    assert in_archive(ArchiveOf(CLOUD, cached=[OLD], offline=True)) == available("6.12.8-1")


def test_without_a_mirror_the_cache_serves_and_a_line_says_so():
    archive = ArchiveOf(cached=[OLD], error=FetchError("the mirror does not respond"))
    assert in_archive(archive) == available("6.12.8-1")
    assert archive.said == ["the mirror does not respond; only the cached kernels are known"]
    with pytest.raises(FetchError):
        in_archive(ArchiveOf(error=FetchError("the mirror does not respond")))
