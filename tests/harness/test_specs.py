"""What may be given to --kernel, and what it means."""

import itertools
import os
import shutil
import subprocess
from dataclasses import replace

import pytest

from kernels import grammar
from kernels.cache import Cache
from kernels.extract import image_release, packaged_version
from kernels.packages import Index, Package, debian_version_key, in_series
from kernels.progress import Reporter
from kernels.spec import FetchError, SpecError, parse, resolve
from session.runs import KernelRun
from tests.harness.debian_archive import write_deb, write_image, write_modules

RELEASE = "6.12.0-kdrift-test"


@pytest.fixture
def cache(tmp_path):
    with Cache(tmp_path / "cache") as cache:
        yield cache


def package(name: str, version: str, *depends: str, suite: str = "bookworm") -> Package:
    return Package(name, version, suite, 1000, f"{hash((name, version)):x}", depends)


def index(*packages: Package) -> Index:
    return Index(packages, 0.0, {})


def binary_kernel(release: str, version: str) -> list[Package]:
    parts = [f"linux-binary-{release}", f"linux-modules-{release}"]
    return [package(f"linux-image-{release}", version, *parts), *(package(name, version) for name in parts)]


@pytest.mark.parametrize(("text", "kind"), [
    ("6", "series"), ("6.12", "series"), ("6.12.107", "series"), ("7.3~rc7", "series"),
    ("6.12.107-1~deb12u1", "exact"), ("6.1.187-1", "exact"), ("6.1.0-53-cloud-amd64", "exact"),
    ("linux-image-6.1.0-53-cloud-amd64", "exact")])
def test_words_and_versions_are_told_apart(text, kind):
    assert parse(text).kind == kind


@pytest.mark.parametrize("text", ["", "banana", "6.12.", "latest", "6.12,modules=/", "-6", "linux"])
def test_what_names_no_kernel_is_one_line(text):
    with pytest.raises(SpecError) as failure:
        parse(text)
    assert "\n" not in str(failure.value) and text.split(",")[0] in str(failure.value)


@pytest.mark.parametrize(("name", "complaint"), [
    ("nowhere/bzImage", "does not exist"), ("missing.deb", "does not exist"), ("./", "arch/x86/boot/bzImage")])
def test_wrong_path_says_what_is_missing(name, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=complaint):
        parse(name)


@pytest.mark.parametrize(("version", "prefix", "belongs"), [
    ("6.12.107-1", "6.12", True), ("6.120.1-1", "6.12", False), ("6.12.107-1", "6.1", False), ("6.12.107-1", "6", True),
    ("6.12-1~exp1", "6.12", True), ("7.3~rc7-1~exp1", "7.3", True), ("6.12.10-1", "6.12.1", False),
    ("6.12.107-1", "6.12.107", True)])
def test_series_ends_at_a_dot(version, prefix, belongs):
    assert in_series(version, prefix) is belongs


@pytest.mark.skipif(not shutil.which("dpkg"), reason="dpkg, which is the authority here, is not installed")
def test_versions_sort_as_dpkg_sorts_them():
    versions = ["6.1.187-1", "6.1.187-1~deb12u1", "6.1.187-1+b1", "6.1.19-1", "6.12.1-1~bpo12+1", "7.3~rc7-1~exp1",
                "7.3-1", "1:5.0-1", "6.1-1", "6.1", "6.1-0", "6.1a-1", "6.1+a-1"]
    for one, other in itertools.combinations(versions, 2):
        ours_one, ours_other = debian_version_key(one), debian_version_key(other)
        for relation, ours in (("lt", ours_one < ours_other), ("eq", ours_one == ours_other)):
            theirs = subprocess.run(["dpkg", "--compare-versions", one, relation, other]).returncode == 0
            assert ours is theirs, f"{one} {relation} {other}: dpkg says {theirs}"


def test_newest_is_by_version_over_all_suites():
    known = index(package("linux-image-6.1.0-9-cloud-amd64", "6.1.9-1"),
                  package("linux-image-6.1.0-10-cloud-amd64", "6.1.10-1", suite="bookworm-security"),
                  package("linux-image-6.12.1-cloud-amd64", "6.12.1-1"))

    assert known.newest("6.1").head.version == "6.1.10-1"


def test_cloud_flavour_is_preferred_and_signed_before_unsigned():
    names = ["linux-image-6.1.0-9-amd64", "linux-image-6.1.0-9-cloud-amd64-unsigned", "linux-image-6.1.0-9-cloud-amd64",
             "linux-image-6.1.0-9-rt-amd64"]
    for count, expected in ((4, names[2]), (2, names[1]), (1, names[0])):
        assert index(*(package(name, "6.1.9-1") for name in names[:count])).newest("6.1").head.name == expected


def test_newer_full_kernel_wins_over_older_cloud_kernel():
    known = index(package("linux-image-5.10.0-32-cloud-amd64", "5.10.223-1"),
                  package("linux-image-5.10.0-43-amd64", "5.10.251-1"))

    assert known.newest("5.10").head.version == "5.10.251-1"


def test_image_that_only_depends_is_taken_with_its_parts():
    chosen = index(*binary_kernel("7.2.1+deb14-cloud-amd64", "7.2.1-1")).newest("7.2")

    assert [part.name.split("-7")[0] for part in chosen.packages] == ["linux-binary", "linux-modules"]


def test_modules_of_a_replaced_signed_kernel_come_from_the_pool():
    """Backports index only the newest linux-modules; the kernel itself then checks each module's signature."""
    known = index(*binary_kernel("6.19.6-cloud-amd64", "6.19.6-1")[:2])

    candidate = known.newest("6.19")

    modules = candidate.packages[-1]
    assert not candidate.listed
    assert (modules.name, modules.listed) == ("linux-modules-6.19.6-cloud-amd64", False)
    assert modules.pool_path == "pool/main/l/linux/linux-modules-6.19.6-cloud-amd64_6.19.6-1_amd64.deb"


def test_unsigned_kernel_whose_modules_are_not_listed_is_not_offered():
    """Its modules may carry no signature, so nothing would say that they are its own."""
    image, binary = binary_kernel("6.19.6-cloud-amd64", "6.19.6-1")[:2]
    unsigned = replace(binary, name="linux-binary-unsigned-6.19.6-cloud-amd64")
    known = index(unsigned, package("linux-image-6.18.1-cloud-amd64", "6.18.1-1"))

    with pytest.raises(SpecError, match="6.19 in the archive: the nearest series are 6.18"):
        known.newest("6.19")


def test_metapackage_for_the_newest_is_no_kernel():
    known = index(package("linux-image-6.12.9-cloud-amd64", "6.12.9-1"),
                  package("linux-image-6.12-cloud-amd64", "6.12.9-1", "linux-image-6.12.9-cloud-amd64"))

    assert known.newest("6.12").head.name == "linux-image-6.12.9-cloud-amd64"


@pytest.mark.parametrize("text", ["6.1.9-1", "linux-image-6.1.0-9-amd64", "6.1.0-9-amd64"])
def test_exact_kernel_by_version_name_or_release(text):
    known = index(package("linux-image-6.1.0-9-amd64", "6.1.9-1"), package("linux-image-6.1.0-9-rt-amd64", "6.1.9-1"),
                  package("linux-image-6.1.0-10-amd64", "6.1.10-1"))

    assert known.exact(text).head.name == "linux-image-6.1.0-9-amd64"


@pytest.mark.parametrize("part", ["image", "binary", "modules"])
def test_split_kernel_by_the_name_of_any_part(part):
    known = index(*binary_kernel("7.2.1-cloud-amd64", "7.2.1-1"), *binary_kernel("7.2.2-cloud-amd64", "7.2.2-1"))

    assert known.exact(f"linux-{part}-7.2.1-cloud-amd64").head.version == "7.2.1-1"


def test_release_is_read_from_the_image_header(tmp_path):
    assert image_release(write_image(tmp_path / "bzImage", RELEASE)) == RELEASE


def test_version_of_the_package_is_read_from_the_image_header(tmp_path, cache):
    """Debian's releases name an ABI: by 6.1.0-57 alone every issue of 6.1 would be listed for it."""
    image = write_image(tmp_path / "bzImage", "6.1.0-57-amd64 (x@y) #1 SMP Debian 6.1.192-3")
    kernel = resolve(str(image), cache)
    assert (kernel.release, kernel.version) == ("6.1.0-57-amd64", "6.1.192-3")
    assert packaged_version(write_image(tmp_path / "own", RELEASE)) is None


@pytest.mark.parametrize("release", ["../../etc", "/etc", ".."])
def test_release_that_is_a_path_is_refused(tmp_path, release):
    with pytest.raises(SpecError, match="invalid kernel release"):
        image_release(write_image(tmp_path / "bzImage", release))


@pytest.mark.parametrize(("size", "complaint"), [(40_000, "truncated"), (100, "not an x86 kernel image")])
def test_cut_off_image_is_refused(tmp_path, size, complaint):
    image = write_image(tmp_path / "bzImage", RELEASE)
    with image.open("r+b") as file:
        file.truncate(size)
    with pytest.raises(SpecError, match=complaint):
        image_release(image)


def test_running_is_the_running_kernels_image(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(grammar, "RUNNING_IMAGES", ("/nowhere/{release}", f"{tmp_path}/vmlinuz-{{release}}"))
    write_image(tmp_path / f"vmlinuz-{os.uname().release}", RELEASE)
    assert resolve("running", cache).release == RELEASE
    assert KernelRun("0", "running").path() is None         # its column is "running"


def test_a_running_kernel_without_an_image_says_so_in_one_line(monkeypatch):
    monkeypatch.setattr(grammar, "RUNNING_IMAGES", ("/nowhere/vmlinuz-{release}",))
    with pytest.raises(SpecError, match=f"^running: cannot read /nowhere/vmlinuz-{os.uname().release}, .*$"):
        parse("running")


def test_image_alone_is_a_kernel_without_modules(tmp_path, cache):
    image = write_image(tmp_path / "bzImage", RELEASE)
    kernel = resolve(str(image), cache)

    assert (kernel.release, kernel.modules, kernel.package) == (RELEASE, None, None)
    assert kernel.vmlinuz.read_bytes() == image.read_bytes()


@pytest.mark.parametrize("given", ["beside", "root", "directory"])
def test_modules_of_an_image_are_found(tmp_path, cache, given):
    place = tmp_path if given == "beside" else tmp_path / "installed"
    image, modules = write_image(tmp_path / "bzImage", RELEASE), write_modules(place, RELEASE)
    (modules / "modules.dep").write_text("")
    option = {"beside": "", "root": f",modules={place}", "directory": f",modules={modules}"}[given]

    assert resolve(f"{image}{option}", cache).modules == modules


def test_paths_may_have_commas(tmp_path, cache):
    image, modules = write_image(tmp_path / "a,b/bz,Image", RELEASE), write_modules(tmp_path / "c,d", RELEASE)
    (modules / "modules.dep").write_text("")

    assert resolve(f"{image},modules={tmp_path}/c,d", cache).modules == modules
    assert resolve(str(image), cache).modules is None
    with pytest.raises(SpecError, match="unknown option 'module=x'"):
        parse(f"{tmp_path}/a,module=x")


def test_modules_of_another_release_are_refused(tmp_path, cache):
    image, modules = write_image(tmp_path / "bzImage", RELEASE), write_modules(tmp_path / "other", "6.12.1-other")
    (modules / "modules.dep").write_text("")

    with pytest.raises(SpecError, match=f"no modules for {RELEASE}"):
        resolve(f"{image},modules={modules}", cache)


def test_rebuilt_module_makes_another_key(tmp_path, cache):
    image, modules = write_image(tmp_path / "bzImage", RELEASE), write_modules(tmp_path, RELEASE)
    (modules / "kernel/net/dummy.ko").write_text("built\n")
    before = resolve(str(image), cache).key
    assert resolve(str(image), cache).key == before

    (modules / "kernel/net/dummy.ko").write_text("built again\n")
    assert resolve(str(image), cache).key != before


def test_built_tree_is_taken_as_it_is(tmp_path, cache):
    image = write_image(tmp_path / "linux/arch/x86/boot/bzImage", RELEASE)
    first = resolve(f"{tmp_path}/linux", cache)
    write_image(image, RELEASE, seed=1)
    second = resolve(f"{tmp_path}/linux", cache)

    assert first.release == second.release == RELEASE and first.key != second.key
    assert first.vmlinuz.exists() and first.modules is None


def test_tree_with_modules_not_installed_is_told_so(tmp_path, cache):
    write_image(tmp_path / "linux/arch/x86/boot/bzImage", RELEASE)
    (tmp_path / "linux/modules.order").write_text("net/dummy.o\n")
    said = []
    reporter = Reporter()
    reporter.say = said.append

    assert resolve(f"{tmp_path}/linux", cache, progress=reporter).modules is None
    assert "modules_install" in said[0]


def test_deb_is_unpacked_once(tmp_path, cache):
    write_image(tmp_path / f"tree/boot/vmlinuz-{RELEASE}", RELEASE)
    write_modules(tmp_path / "tree", RELEASE)
    deb = write_deb(tmp_path, f"linux-image-{RELEASE}", "6.12.0-1", tmp_path / "tree")
    kernel = resolve(str(deb), cache)

    assert (kernel.package, kernel.version, kernel.release) == (f"linux-image-{RELEASE}", "6.12.0-1", RELEASE)
    assert (kernel.modules / "modules.dep").exists()
    assert resolve(str(deb), cache) == kernel and len(cache.entries("kernels")) == 1


def test_binary_deb_takes_the_modules_deb_beside_it(tmp_path, cache):
    write_image(tmp_path / f"one/usr/lib/modules/{RELEASE}/vmlinuz", RELEASE)
    write_modules(tmp_path / "two/usr", RELEASE)
    deb = write_deb(tmp_path, f"linux-binary-unsigned-{RELEASE}", "6.19-1", tmp_path / "one")
    with pytest.raises(SpecError, match=f"put linux-modules-{RELEASE} beside it"):
        resolve(str(deb), cache)

    write_deb(tmp_path, f"linux-modules-{RELEASE}", "6.19-1", tmp_path / "two")
    assert (resolve(str(deb), cache).modules / "kernel/net/empty.txt").exists()


def test_truncated_deb_is_one_clear_line(tmp_path, cache):
    write_image(tmp_path / f"tree/boot/vmlinuz-{RELEASE}", RELEASE)
    deb = write_deb(tmp_path, f"linux-image-{RELEASE}", "6.12.0-1", tmp_path / "tree")
    with deb.open("r+b") as file:
        file.truncate(30_000)

    with pytest.raises(FetchError, match=f"{deb.name} is truncated or damaged") as failure:
        resolve(str(deb), cache)
    assert "\n" not in str(failure.value)
    assert cache.entries("kernels") == [] and list((cache.root / "tmp").iterdir()) == []


def test_deb_without_a_kernel_is_refused(tmp_path, cache):
    (tmp_path / "tree/usr").mkdir(parents=True)
    deb = write_deb(tmp_path, "hello", "1.0-1", tmp_path / "tree")
    with pytest.raises(SpecError, match="no kernel image in the package"):
        resolve(str(deb), cache)


@pytest.mark.parametrize("architecture", ["arm64", "i386"])
def test_other_architectures_are_refused(cache, tmp_path, monkeypatch, architecture):
    fake = tmp_path / "bin/dpkg"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho {architecture}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=":")

    with pytest.raises(SpecError, match=f"unsupported architecture {architecture}"):
        resolve("6.1", cache, offline=True)


def test_rpm_without_a_tool_names_the_package_to_install(tmp_path, cache, monkeypatch):
    (tmp_path / "kernel.rpm").write_bytes(b"\xed\xab\xee\xdb")
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(FetchError, match=r"bsdtar is not installed \(Debian package: libarchive-tools\)"):
        resolve(str(tmp_path / "kernel.rpm"), cache)
