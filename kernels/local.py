"""Kernels from local files: packages, images and built trees."""

import hashlib
import shutil
from pathlib import Path

from common.errors import SpecError
from kernels.cache import Cache, Meta, sha256_of
from kernels.extract import Kernel, image_release, packaged_version
from kernels.grammar import LocalSpec
from kernels.modules import files, identity
from kernels.progress import Reporter
from kernels.unpack import deb_fields, settle, unpack


def resolve(spec: LocalSpec, cache: Cache, progress: Reporter) -> Kernel:
    """The kernel in the file or tree that `spec` names, unpacked into the cache. Raises SpecError or FetchError."""
    if spec.kind == "package":
        return _from_packages(spec, cache)
    image = spec.path / "arch/x86/boot/bzImage" if spec.kind == "tree" else spec.path
    release = image_release(image)
    key = sha256_of(image)[:16]

    # A copy, because the next build of a tree overwrites the image while machines may still boot from it.
    def copy(root: Path) -> None:
        shutil.copy(image, root / "vmlinuz")

    path = cache.build("kernels", key, copy, {"release": release, "path": str(image)})
    modules = _given_modules(spec, release) if spec.modules else _found_modules(spec, image, release)
    if modules is None and spec.kind == "tree" and (spec.path / "modules.order").exists():
        progress.say(f"{spec.text}: the modules are not built, so only built-in features work: run `make modules`, or "
                     "`make modules_install INSTALL_MOD_PATH=DIR` and append ,modules=DIR")
    key = hashlib.sha256(f"{key} {identity(modules)}".encode()).hexdigest()[:16] if modules else key
    return Kernel(spec.text, release, None, packaged_version(image), path / "vmlinuz", modules, key)


def _from_packages(spec: LocalSpec, cache: Cache) -> Kernel:
    name = version = None
    packages = [spec.path, *(path for path in spec.modules if path.is_file())]
    if spec.path.suffix == ".deb":
        fields = deb_fields(spec.path)
        name, version = fields.get("Package"), fields.get("Version")
        packages += [path for path in _companions(spec.path, name or "") if path not in packages]
    key = hashlib.sha256("".join(map(sha256_of, packages)).encode()).hexdigest()[:16]

    def build(root: Path) -> Meta:
        for package in packages:
            unpack(package, root)
        try:
            vmlinuz, modules, release = settle(root)
        except SpecError as error:
            raise SpecError(f"{spec.text}: {error}; from Debian 6.19 on linux-image may only depend on the packages with "
                            "the kernel: give linux-binary, with linux-modules beside it") from error
        return {"vmlinuz": str(vmlinuz.relative_to(root)), "release": release,
                "modules": str(modules.relative_to(root)) if modules else None}

    path = cache.build("kernels", key, build, {"package": name, "version": version, "path": str(spec.path)})
    meta = cache.meta(path)
    modules = path / meta["modules"] if meta["modules"] else None
    if any(given.is_dir() for given in spec.modules):
        modules = _given_modules(spec, meta["release"])
        key = hashlib.sha256(f"{key} {identity(modules)}".encode()).hexdigest()[:16]
    return Kernel(spec.text, meta["release"], name, version, path / meta["vmlinuz"], modules, key)


def _companions(package: Path, name: str) -> list[Path]:
    """The linux-modules package beside a linux-binary package. Raises SpecError."""
    release = name.removeprefix("linux-binary-").removeprefix("unsigned-")
    if release == name:
        return []
    found = sorted(package.parent.glob(f"linux-modules-{release}_*.deb"))
    if not found:
        raise SpecError(f"{package} contains only the image: put linux-modules-{release} beside it, or append "
                        ",modules=PATH")
    return found[-1:]


def _given_modules(spec: LocalSpec, release: str) -> Path:
    for base in spec.modules:
        for path in (base, *_places(base, release), base / release):
            if _are_modules(path, release):
                return path
    others = sorted({path.parent.name for base in spec.modules for place in (".", "*", "lib/modules/*", "usr/lib/modules/*")
                     for path in base.glob(f"{place}/modules.*")} - {"", release})
    found = f"found modules for {', '.join(others)}" if others else f"expected a directory {release} with modules"
    raise SpecError(f"{spec.text}: no modules for {release}; {found}")


def _found_modules(spec: LocalSpec, image: Path, release: str) -> Path | None:
    installed = Path("/lib/modules") / release
    if spec.kind == "tree":
        places = [*_places(spec.path, release)]
        # Another tree may have installed modules under the same release.
        if (installed / "build").exists() and (installed / "build").samefile(spec.path):
            places.append(installed)
    else:
        places = [image.parent, *_places(image.parent, release), *_places(image.parent.parent, release), installed]
    found = next((path for path in places if _are_modules(path, release)), None)
    if found is None and spec.kind == "tree" and (spec.path / "modules.order").is_file() and files(spec.path):
        return spec.path                    # built but not installed
    return found


def _are_modules(path: Path, release: str) -> bool:
    return path.name == release and path.is_dir() and ((path / "modules.dep").is_file() or bool(files(path)))


def _places(base: Path, release: str) -> tuple[Path, Path]:
    return base / "lib/modules" / release, base / "usr/lib/modules" / release
