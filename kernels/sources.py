"""Where to fetch the Debian archive, from the host's own apt configuration (sources.list(5))."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from common.errors import FetchError

RELEASES = ("bullseye", "bookworm", "trixie")
TESTING = ("forky", "sid", "experimental")
ALIASES = ("oldoldstable", "oldstable", "stable", "testing", "unstable", "buster")
MAIN_SUITES = (*(f"{release}{pocket}" for release in RELEASES for pocket in ("", "-updates", "-backports")), *TESTING)
# The suites with all packages of a release. The list of each takes some 10 MB, that of any other suite less than 0.5 MB.
LARGE = (*RELEASES, "forky", "sid")
SECURITY_SUITES = tuple(f"{release}-security" for release in RELEASES)
KEYRINGS = ("/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True)
class Source:
    """One entry of an apt source list: URIs, suites, components, and the keys that must have signed it."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...] = ("main",)
    signed_by: str | None = None

    def stanza(self, suite: str, target: str = "") -> str:
        """This source for one suite, main and amd64 only, in deb822 format; of apt's index targets only `target`, if given."""
        lines = ["Types: deb", f"URIs: {' '.join(self.uris)}", f"Suites: {suite}", "Components: main",
                 "Architectures: amd64", *([f"Targets: {target}"] if target else [])]
        if self.signed_by:
            # An embedded key takes several lines and starts on a new one.
            lines.append(f"Signed-By:{chr(10) if chr(10) in self.signed_by else ''} {self.signed_by}")
        return "\n".join(lines) + "\n"


def archives(mirror: str | None = None) -> dict[str, Source]:
    """The source of every suite that kdrift uses, by suite.

    `mirror` (or $KDRIFT_MIRROR) is the URI of a Debian archive, optionally followed by a space and that of the security
    archive; it overrides the host's configuration. Raises FetchError if no Debian archive is known.
    """
    sources = list(read_sources(*_source_files()))
    main = _best(sources, lambda suite: suite.split("-")[0] in (*RELEASES, *TESTING, *ALIASES)
                 and not _is_security(suite))
    security = _best(sources, _is_security)
    if chosen := mirror or os.environ.get("KDRIFT_MIRROR"):
        addresses = chosen.split()
        main = _override(addresses[0], main)
        security = _override(addresses[1], security or main) if len(addresses) > 1 else security
    if main is None:
        raise FetchError("no Debian archive in the apt configuration of this machine: "
                         "give its URI with --mirror or KDRIFT_MIRROR")
    found = dict.fromkeys(MAIN_SUITES, main)
    if security:
        found |= dict.fromkeys(SECURITY_SUITES, security)
    return found


def read_sources(main: Path, parts: Path) -> Iterable[Source]:
    """The enabled binary sources of a file such as sources.list and a directory such as sources.list.d, in both formats."""
    for path in (main, *sorted(parts.glob("*"))):
        if path.suffix not in (".list", ".sources") or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        yield from (_deb822(text) if path.suffix == ".sources" else _one_line(text))


def _source_files() -> tuple[Path, Path]:
    """The paths that apt reads, which the host may configure. Raises FetchError."""
    if not shutil.which("apt-config"):
        raise FetchError("apt is not installed, and Debian kernels cannot be fetched without it: give the path of a kernel instead")
    query = ["apt-config", "shell", "main", "Dir::Etc::sourcelist/f", "parts", "Dir::Etc::sourceparts/d"]
    answer = subprocess.run(query, capture_output=True, text=True, errors="replace")
    if answer.returncode:
        raise FetchError(f"apt's configuration cannot be read: {(answer.stderr.strip().splitlines() or ['no reason given'])[0]}")
    found = dict(word.split("=", 1) for word in shlex.split(answer.stdout))
    return Path(found["main"]), Path(found["parts"])


def _deb822(text: str) -> Iterable[Source]:
    text = re.sub(r"(?m)^#.*\n?", "", text)
    for stanza in re.split(r"\n\s*\n", text):
        fields = {}
        for name, value in re.findall(r"(?m)^([\w-]+):((?:.*)(?:\n[ \t].*)*)", stanza):
            fields[name.lower()] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        yield Source(tuple(fields.get("uris", "").split()), tuple(fields.get("suites", "").split()),
                     tuple(fields.get("components", "").split()), fields.get("signed-by"))


def _one_line(text: str) -> Iterable[Source]:
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<rest>[^#]*)", line)
        words = match["rest"].split() if match else []
        if not match or len(words) < 2:
            continue
        try:
            options = dict(word.split("=", 1) for word in shlex.split(match["options"] or "") if "=" in word)
        except ValueError:                  # a quotation without an end: apt refuses the line too
            continue
        signed_by = options.get("signed-by")
        yield Source((words[0],), (words[1],), tuple(words[2:]), signed_by and signed_by.replace(",", " "))


def _is_security(suite: str) -> bool:
    return suite.endswith(("-security", "/updates"))


def _best(sources: list[Source], wanted: Callable[[str], bool]) -> Source | None:
    """The likeliest Debian archive: others use its suite names too, but hardly its keyring, path and suites together."""
    def likelihood(source: Source) -> int:
        keys = source.signed_by or ""
        paths = [uri.rstrip("/").rsplit("/", 1)[-1] for uri in source.uris]
        return (4 * ("debian-archive" in keys) + 2 * (not keys) + 2 * any(path.startswith("debian") for path in paths)
                + any(suite.endswith(("-updates", "-security")) for suite in source.suites))

    fitting = [source for source in sources
               if "main" in source.components and any(map(wanted, source.suites)) and source.uris
               and not any(uri.startswith("cdrom:") for uri in source.uris)]
    fitting = [source for source in fitting if likelihood(source) >= 2]
    return max(fitting, key=likelihood, default=None)


def _override(address: str, known: Source | None) -> Source:
    keys = known.signed_by if known else next((path for path in KEYRINGS if Path(path).exists()), None)
    return Source((address,), (), ("main",), keys)
