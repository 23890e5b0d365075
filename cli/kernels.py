"""`./kdrift kernels`: which kernels can be had, which are cached and how large they are; clears the cache."""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from cli.refusal import refuse
from common.errors import FetchError
from common.status import Exit
from kernels.cache import Cache, Entry
from kernels.debian import Archive, key_of
from kernels.packages import Candidate
from kernels.progress import Reporter, megabytes


@dataclass(frozen=True)
class Row:
    """A kernel of the table; sizes in bytes, on disk for package, image and state, None where not cached."""

    series: str
    version: str
    package: str
    suite: str
    download: int | None
    cached: bool
    package_size: int | None = None
    image_size: int | None = None
    state_size: int | None = None


def run(options: argparse.Namespace) -> int:
    progress = Reporter()
    try:
        with Cache(say=progress.say) as cache:
            if options.prune:
                return _prune(cache)
            archive = Archive(cache, offline=options.offline, progress=progress, mirror=options.mirror)
            rows = list(_rows(archive, every=options.all))
    except FetchError as error:
        return refuse(error, Exit.LOST)
    if options.json:
        json.dump([asdict(row) for row in rows], sys.stdout, indent=1)
        print()
    else:
        _print(rows)
    return Exit.OK


def _rows(archive: Archive, *, every: bool) -> Iterator[Row]:
    cached = {entry.key: entry for entry in archive.cache.entries("kernels")}
    boots = archive.cache.entries("images", "states")
    try:
        index = archive.index()
        candidates = index.candidates
        if index.unread:
            archive.progress.say(f"not listed, as their package lists have not been fetched: {', '.join(index.unread)}")
    except FetchError as error:
        if not cached:
            raise
        archive.progress.say(f"{error}; only the cached kernels are listed")
        candidates = []
    shown = set()
    newest = {candidate.series: candidate for candidate in candidates if candidate.head.flavour != "rt-amd64"}
    for candidate in candidates:
        key = key_of(candidate)
        if every or key in cached or candidate is newest.get(candidate.series):
            shown.add(key)
            yield _row(candidate, cached.get(key), boots)
    for key, entry in cached.items():
        if key not in shown:
            yield _cached_row(entry, boots)


def _row(candidate: Candidate, entry: Entry | None, boots: list[Entry]) -> Row:
    head = candidate.head
    return Row(candidate.series, head.version, head.name, head.suite, candidate.size, entry is not None,
               **(_sizes(entry, boots) if entry else {}))


def _cached_row(entry: Entry, boots: list[Entry]) -> Row:
    """A kernel of a file, or one that the archive no longer has."""
    meta = entry.meta
    release = meta.get("release", "damaged")
    series = ".".join(release.split(".")[:2])
    return Row(series, meta.get("version") or release, meta.get("package") or meta.get("path", entry.key),
               meta.get("suite", "local"), None, True, **_sizes(entry, boots))


def _sizes(entry: Entry, boots: list[Entry]) -> dict[str, int | None]:
    """Images and states name the kernel they were made of as `kernel` in their meta."""
    def total(area: str) -> int | None:
        sizes = [boot.size for boot in boots if boot.area == area and boot.meta.get("kernel") == entry.key]
        return sum(sizes) if sizes else None

    return {"package_size": entry.size, "image_size": total("images"), "state_size": total("states")}


def _print(rows: list[Row]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("series", "version", "package", "suite"):
        table.add_column(name, overflow="fold")
    for name in ("download", "cached", "image", "state"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        sizes = (row.download, row.package_size, row.image_size, row.state_size)
        table.add_row(row.series, row.version, row.package, row.suite,
                      *("-" if size is None else megabytes(size) for size in sizes))
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)


def _prune(cache: Cache) -> int:
    freed, busy = cache.prune()
    print(f"{megabytes(freed)} freed")
    for name in busy:
        print(f"{name} is in use: left alone")
    return Exit.OK
