"""A kernel's package is a stranger's file: nothing is written or read outside, and what is no kernel's is one line."""
import gzip
import lzma
import os
import resource
import stat
import tarfile

import pytest

from common.errors import FetchError
from kernels import modules
from kernels.cache import Cache
from kernels.spec import SpecError, resolve
from tests.harness.hostile_packages import MODULES, RELEASE, deb, endless_header, holes, kernel, link, member, rpm, tar

SECRET = "the host's"


@pytest.fixture
def cache(tmp_path):
    with Cache(tmp_path / "cache") as cache:
        yield cache


@pytest.fixture
def outside(tmp_path):
    """A directory of the host, as deep as /usr; what is in it must stay, and nothing must come."""
    (tmp_path / "outside/share").mkdir(parents=True)
    (tmp_path / "outside/share/secret").write_text(SECRET)
    yield tmp_path / "outside"
    assert [path.name for path in (tmp_path / "outside").rglob("*")] == ["share", "secret"]
    assert (tmp_path / "outside/share/secret").read_text() == SECRET


@pytest.fixture(params=["deb", "rpm"])
def package(request, tmp_path):
    def write(*members):
        members = [*members]
        return deb(tmp_path / "a.deb", tar(members)) if request.param == "deb" else rpm(tmp_path / "a.rpm", members)

    return write


def refused(cache, package, said):
    with pytest.raises((FetchError, SpecError), match=said) as failure:
        resolve(str(package), cache)
    assert str(failure.value).isprintable()
    assert cache.entries("kernels") == [] and not any((cache.root / "tmp").iterdir())


def contents(directory):
    return {str(path.relative_to(directory)): path for path in directory.rglob("*")}


def test_a_kernel_is_unpacked(cache, tmp_path, package):
    found = resolve(str(package(*kernel(tmp_path))), cache)

    assert found.release == RELEASE
    assert (found.modules / "kernel/net/readme").read_text() == "no module\n"


@pytest.mark.parametrize("name", ["../outside/new", "{outside}/new", f"{MODULES}/../../../../../outside/new", f"{MODULES}/kernel/..",
                                  f"{MODULES}/kernel/\x1b[31m", f"{MODULES}/two\nlines", f"{MODULES}/\udcff"], ids=ascii)
def test_a_name_that_leads_out_is_refused(cache, tmp_path, outside, package, name):
    path = package(*kernel(tmp_path), member(name.format(outside=outside), b"new"))
    refused(cache, path, "is no kernel package: it has a file|truncated or damaged")


@pytest.mark.parametrize("links", [{"usr": ""}, {"usr/share": "share"}, {"etc": "share"}, {"lib": ""}, {"lib/modules": ""},
                                   {MODULES: ""}, {f"{MODULES}/kernel/net/more": "share"}], ids=lambda links: next(iter(links)))
def test_no_link_leads_out(cache, tmp_path, outside, package, links):
    """Neither what follows in the archive, nor what is tidied up afterwards."""
    links = [link(name, outside / to) for name, to in links.items()]
    path = package(*links, *kernel(tmp_path), member(f"{MODULES}/kernel/net/more/new", b"new"), member("usr/share/new", b"new"))

    found = resolve(str(path), cache)

    assert not any(path.is_symlink() for path in found.vmlinuz.parents[1].rglob("*"))


def test_links_of_one_package_do_not_lead_the_next_one_out(cache, tmp_path, outside):
    first = deb(tmp_path / "a.deb", tar([link(f"{MODULES}/kernel", outside), *kernel(tmp_path)[:1]]))
    second = deb(tmp_path / "b.deb", tar([*kernel(tmp_path)[1:], member(f"{MODULES}/kernel/new", b"new")]))

    resolve(f"{first},modules={second}", cache)


def test_neither_devices_nor_modes_are_taken(cache, tmp_path, package):
    path = package(*kernel(tmp_path), member(f"{MODULES}/kernel/null", kind=tarfile.CHRTYPE),
                   member(f"{MODULES}/kernel/program", b"#!/bin/sh\n", mode=0o6755), member("usr/bin/program", b"#!/bin/sh\n", mode=0o6755))

    found = resolve(str(path), cache)

    there = contents(found.modules.parents[2])
    assert "lib/modules/6.12.0-kdrift-test/kernel/null" not in there and not any(name.startswith("usr") for name in there)
    assert not any(path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID | 0o111) for path in there.values() if path.is_file())


@pytest.mark.parametrize("name", ["modules.dep", "modules.builtin", "modules.order", "kernel/net/ipip.ko"])
def test_no_file_of_the_host_comes_into_the_boot_image(cache, tmp_path, outside, package, name):
    """As a link, and as a name in modules.dep."""
    secret = outside / "share/secret"
    listing = f"kernel/net/ipip.ko: {secret} ../../../../../{secret}\n{secret}:\n".encode()
    plain = [each for each in kernel(tmp_path) if not each[0].name.endswith(name)]
    found = resolve(str(package(*plain, member(f"{MODULES}/modules.dep", listing), link(f"{MODULES}/{name}", secret))), cache)

    modules.stage(tmp_path / "stage", found)

    assert not any(SECRET in path.read_text(errors="replace") for path in contents(tmp_path / "stage").values() if path.is_file())


@pytest.mark.parametrize("name", ["modules.dep", "modules.builtin", "kernel/net/ipip.ko"])
def test_no_link_in_a_directory_of_modules_is_followed(tmp_path, cache, outside, name):
    found = resolve(str(deb(tmp_path / "a.deb", tar(kernel(tmp_path)))), cache)
    place = found.modules / name
    place.unlink(missing_ok=True)
    place.symlink_to(outside / "share/secret")

    modules.stage(tmp_path / "stage", found)

    assert not any(SECRET in path.read_text(errors="replace") for path in contents(tmp_path / "stage").values() if path.is_file())


def test_a_package_of_zeros_is_refused_before_it_fills_the_disk(cache, tmp_path, monkeypatch):
    monkeypatch.setattr("kernels.unpack.LARGEST", 1 << 20)
    bomb = lzma.compress(tar([*kernel(tmp_path), member(f"{MODULES}/kernel/zeros", bytes(4 << 20))]))
    assert len(bomb) < 200_000

    refused(cache, deb(tmp_path / "a.deb", bomb, compression=".xz"), "holds more than 0 GB of contents")


def test_a_header_without_end_takes_no_memory(cache, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bomb = lzma.compress(endless_header() + bytes(300 << 20), preset=0)

    refused(cache, deb(tmp_path / "a.deb", bomb, compression=".xz"), "a header has an impossible size")

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 << 10, "in kB; the bomb itself takes half of it"


@pytest.mark.parametrize("more", [
    [holes(f"{MODULES}/kernel/holes")],
    [member(f"{MODULES}/kernel/one", b"a"), member(f"{MODULES}/kernel/one", b"b")],
    [member(f"{MODULES}/kernel/one", b"a"), member(f"{MODULES}/kernel/one/below", b"b")],
    [member(f"{MODULES}/kernel/{'long' * 1000}", b"a")],
], ids=["holes", "twice", "below a file", "long"])
def test_a_tree_that_cannot_be_is_one_line(cache, tmp_path, more):
    refused(cache, deb(tmp_path / "a.deb", tar([*kernel(tmp_path), *more])), "a.deb is truncated or damaged")


@pytest.mark.parametrize("control", [
    b"", b"Package: linux-image-1\n", b"Package: ../../x\nVersion: 1\n", b"Package: linux-binary-*\nVersion: 1\n",
    b"Package: linux-image-1\nVersion: <script>alert(1)</script>\n", b"Package: linux-image-1\nVersion: 1\x1b[31m\n", b"\xff\xfe" * 1000,
], ids=["empty", "no version", "path", "pattern", "markup", "escape", "binary"])
def test_what_a_package_says_of_itself_is_a_name_and_a_version(cache, tmp_path, control):
    refused(cache, deb(tmp_path / "a.deb", tar(kernel(tmp_path)), control), "its control file has no valid (Package|Version)")


def test_a_control_file_that_leads_out_is_not_followed(cache, tmp_path, outside):
    path = deb(tmp_path / "a.deb", tar(kernel(tmp_path)))
    data = path.read_bytes()
    links = tar([link("./md5sums", outside / "new"), member("./md5sums", b"new"), link("./control", outside / "share/secret")])
    own = tar([member("./control", b"")])
    assert len(links) == len(own)
    start = data.index(b"./control")
    path.write_bytes(data[:start] + links + data[start + len(own):])

    refused(cache, path, "its control file has no valid Package")


@pytest.mark.parametrize("ending", [".xz", ".gz"])
def test_a_module_that_decompresses_without_end_is_refused(tmp_path, monkeypatch, ending):
    monkeypatch.setattr("kernels.modules.LARGEST", 1 << 20)
    module = tmp_path / f"a.ko{ending}"
    module.write_bytes({".xz": lzma.compress, ".gz": gzip.compress}[ending](bytes(2 << 20)))

    with pytest.raises(FetchError, match="so it is no module"):
        modules.copy(module, tmp_path / f"b.ko{ending}")
    assert os.listdir(tmp_path) == [module.name]
