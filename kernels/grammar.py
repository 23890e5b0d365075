"""Kernel specifications, as given to --kernel.

    running                     this machine's running kernel, by its image in /boot
    6.12                        the newest Debian kernel of that series; also 6 or 6.12.107
    6.1.187-1                   a Debian package version; also a package name or a release (uname -r)
    path.deb, path.rpm          a package; further ones as ,modules=PATH
    path/to/bzImage             an image; its modules beside it, or as ,modules=DIR
    path/to/tree                a built kernel tree; modules as ,modules=INSTALL_MOD_PATH
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from common.errors import SpecError, one_line

LONGEST_NAME = 255                          # of a package, its version or a release
RUNNING_IMAGES = ("/boot/vmlinuz-{release}", "/lib/modules/{release}/vmlinuz")


@dataclass(frozen=True)
class Spec:
    """A parsed specification: kind is "series" or "exact"; that of a LocalSpec "running" (an image), "package", "image" or "tree"."""

    text: str
    kind: str


@dataclass(frozen=True)
class LocalSpec(Spec):
    """A parsed specification of files, by absolute paths."""

    path: Path
    modules: tuple[Path, ...]


def parse(text: str) -> Spec:
    """Parse a specification without using the network or the cache. Raises SpecError, one line."""
    try:
        return _parse(text)
    except SpecError as error:
        raise SpecError(one_line(str(error))) from None
    except (OSError, RuntimeError, ValueError) as error:        # no path: too long, of a user who does not exist, with a null byte
        raise SpecError(one_line(f"{text[:200]!r} is not a kernel: {getattr(error, 'strerror', '') or error}")) from None


def is_fetched(text: str) -> bool:
    """Whether a specification names a kernel of the archive. Sorted by this, files come first: one that is no kernel is refused before
    anything is fetched. Raises SpecError."""
    return not isinstance(parse(text), LocalSpec)


def _parse(text: str) -> Spec:
    if text == "running":
        return LocalSpec(text, "running", _running_image(os.uname().release), ())
    name, *options = [text] if os.path.exists(os.path.expanduser(text)) else re.split(",(?=modules=)", text)
    if "," in name and not os.path.exists(os.path.expanduser(name)):
        name, *others = name.split(",")
        options = [*others, *options]
    path = Path(os.path.expanduser(name))
    if "/" in name or path.suffix in (".deb", ".rpm") or name.startswith(("vmlinu", "bzImage")):
        return _parse_path(text, path, options)
    if options:
        raise SpecError(f"{text}: only a path may be followed by ,modules=PATH")
    if len(name) > LONGEST_NAME:
        raise SpecError(f"{text[:200]!r}... is not a kernel: it has {len(name)} characters")
    if re.fullmatch(r"\d+(\.\d+)*(~rc\d+)?", name):
        return Spec(text, "series")
    if re.fullmatch(r"(\d+\.[\w.+~:-]*-|linux-(image|binary|modules)-)[\w.+~:-]+", name, re.ASCII):
        return Spec(text, "exact")
    if path.exists():
        return _parse_path(text, path, options)
    raise SpecError(f"{text!r} is not a kernel: expected a series (6.12), a Debian version or package name, "
                    "or the path of a .deb, .rpm, bzImage or build tree")


def _running_image(release: str) -> Path:
    places = [Path(each.format(release=release)) for each in RUNNING_IMAGES]
    for place in places:
        if os.access(place, os.R_OK):
            return place
    raise SpecError(f"running: cannot read {' or '.join(map(str, places))}, the image that a machine would boot; "
                    "without --kernel the tests run on the running kernel itself")


def _parse_path(text: str, path: Path, options: list[str]) -> LocalSpec:
    for option in options:
        if not option.startswith("modules="):
            raise SpecError(f"{text}: unknown option {option!r}: only modules=PATH may follow a path")
    modules = tuple(Path(os.path.expanduser(option.removeprefix("modules="))).absolute() for option in options)
    for each in (path, *modules):
        if not each.exists():
            raise SpecError(f"{each} does not exist")
        if not os.access(each, os.R_OK):
            raise SpecError(f"{each}: Permission denied")
    path = path.absolute()
    if path.is_dir():
        if not (path / "arch/x86/boot/bzImage").is_file():
            raise SpecError(f"{path} has no arch/x86/boot/bzImage: not a kernel tree, or not built")
        return LocalSpec(text, "tree", path, modules)
    return LocalSpec(text, "package" if path.suffix in (".deb", ".rpm") else "image", path, modules)
