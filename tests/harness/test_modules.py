"""Modules as builds leave them: compressed in any way, without a listing, in the tree where they were built."""

import gzip
import lzma
import re
import shutil
from pathlib import Path

import pytest

from common.errors import FetchError, SpecError
from kernels import modules
from kernels.cache import Cache
from kernels.extract import Kernel
from kernels.spec import resolve
from tests.harness.debian_archive import write_image
from tests.harness.sessions import KERNEL

NEEDED = ["net/ipv4/ip_tunnel", "net/ipv4/tunnel4", "net/ipv4/ipip"]    # ipip needs the others, and names them


@pytest.fixture(scope="module")
def real():
    """The modules of a kernel as its package has them."""
    with Cache() as cache:
        yield resolve(KERNEL, cache)


def take(kernel: Kernel, directory: Path, ending: str) -> Path:
    """A modules directory with NEEDED, compressed as `ending` says."""
    pack = {"": lambda data: data, ".xz": lzma.compress, ".gz": gzip.compress}[ending]
    target = directory / "lib/modules" / kernel.release
    for name in NEEDED:
        place = target / f"kernel/{name}.ko{ending}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(pack(lzma.decompress((kernel.modules / f"kernel/{name}.ko.xz").read_bytes())))
    return target


@pytest.mark.parametrize("ending", ["", ".xz", ".gz"])
def test_modules_without_a_listing_are_packed_with_what_they_need(real, tmp_path, ending):
    source = take(real, tmp_path, ending)

    found = modules.dependencies(source, real.release)
    modules.stage(tmp_path / "stage", Kernel("", real.release, None, None, real.vmlinuz, source, ""))

    assert sorted(found[f"kernel/net/ipv4/ipip.ko{ending}"]) == [f"kernel/{name}.ko{ending}" for name in NEEDED[:2]]
    staged = tmp_path / "stage/lib/modules" / real.release
    assert set(modules.files(staged)) == {f"kernel/{name}.ko" for name in NEEDED}
    assert modules.parse((staged / "modules.dep").read_text())["kernel/net/ipv4/ipip.ko"]
    assert not (source / "modules.dep").exists(), "what is the user's stays as it is"


def test_a_listing_of_other_files_is_not_believed(real, tmp_path):
    """Compressed after depmod has run: it names files that are not there any more."""
    source = take(real, tmp_path, ".gz")
    (source / "modules.dep").write_text("".join(f"kernel/{name}.ko:\n" for name in NEEDED))

    assert modules.dependencies(source, real.release)["kernel/net/ipv4/ipip.ko.gz"]


@pytest.mark.parametrize("line", ["{}.o", "kernel/{}.ko"], ids=["since 6.2", "before"])
def test_a_built_tree_has_its_modules(real, tmp_path, line):
    """Also one made by `make O=DIR`. What modules.order does not name, as its samples, is not installed."""
    tree = tmp_path / "tree"
    shutil.copytree(take(real, tmp_path, "") / "kernel", tree)
    write_image(tree / "arch/x86/boot/bzImage", real.release)
    (tree / "Makefile").write_text("")
    (tree / "net/sample.ko").write_text("")
    (tree / "modules.order").write_text("".join(line.format(name) + "\n" for name in [*NEEDED, "net/not_built"]))

    with Cache(tmp_path / "cache") as cache:
        kernel = resolve(str(tree), cache)
    modules.stage(tmp_path / "stage", kernel)

    assert kernel.modules == tree
    staged = tmp_path / "stage/lib/modules" / real.release
    assert modules.files(staged) == sorted(f"{name}.ko" for name in NEEDED)
    assert modules.parse((staged / "modules.dep").read_text())["net/ipv4/ipip.ko"]


def test_a_listing_that_leads_out_of_the_modules_is_not_followed(real, tmp_path):
    source = take(real, tmp_path, "")
    (source.parent / "outside.ko").write_text("not theirs")
    (source / "modules.dep").write_text("".join(f"kernel/{name}.ko: ../outside.ko\n" for name in NEEDED) + "../outside.ko:\n")

    assert not any("outside" in name for name in modules.closure(source, real.release))


@pytest.mark.parametrize("ending", [".xz", ".gz"])
def test_a_damaged_module_is_one_line(real, tmp_path, ending):
    module = take(real, tmp_path, ending) / f"kernel/net/ipv4/ipip.ko{ending}"
    module.write_bytes(module.read_bytes()[:-100])

    with pytest.raises(FetchError, match=re.escape(f"{module} is truncated or damaged")) as failure:
        modules.copy(module, tmp_path / f"ipip.ko{ending}")
    assert "\n" not in str(failure.value)


def test_modules_of_another_release_say_which(tmp_path):
    image = write_image(tmp_path / "bzImage", "6.12.0-kdrift-test")
    place = tmp_path / "other/lib/modules/6.1.0-9-amd64"
    place.mkdir(parents=True)
    (place / "modules.order").write_text("")

    said = "no modules for 6.12.0-kdrift-test; found modules for 6.1.0-9-amd64"
    with Cache(tmp_path / "cache") as cache, pytest.raises(SpecError, match=said):
        resolve(f"{image},modules={tmp_path / 'other'}", cache)


def test_the_build_is_the_same_wherever_it_lies(real, tmp_path):
    """By contents and not by times, so that jobs on several machines come together; another image or set of modules is another."""
    first, second = take(real, tmp_path / "a", ""), take(real, tmp_path / "b", "")
    kernels = [Kernel("", real.release, None, None, real.vmlinuz, source, "") for source in (first, second)]
    assert modules.build_of(kernels[0]) == modules.build_of(kernels[1])

    (second / "kernel/net/ipv4/ipip.ko").unlink()
    assert modules.build_of(kernels[0]) != modules.build_of(kernels[1])
