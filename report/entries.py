"""Project files that list things as an array of TOML tables, each with an id."""
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar


class Named(Protocol):
    """What an entry is."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Named)


def read_entries(path: Path, name: str, make: Callable[[dict[str, Any]], T], error: type[Exception]) -> list[T]:
    """The results of `make` for each table of the array `name`; each has an `id`, unique in the file.

    `make` raises KeyError, TypeError or ValueError for an unusable table.  Raises `error`, with one line that says where and why.
    """
    try:
        entries = tomllib.loads(path.read_text()).get(name, [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as trouble:
        raise error(f"{path.name}: {trouble}") from None
    if not isinstance(entries, list):
        raise error(f"{path.name}: {name!r} is not an array of tables")
    found = []
    for number, entry in enumerate(entries, 1):
        try:
            found.append(make(entry))
        except (KeyError, TypeError, ValueError) as trouble:
            what = f"missing field {trouble}" if isinstance(trouble, KeyError) else str(trouble)
            identity = entry.get("id", "without an id") if isinstance(entry, dict) else "not a table"
            raise error(f"{path.name}: {name} {number} ({identity}): {what}") from None
    names = [each.id for each in found]
    if twice := {each for each in names if names.count(each) > 1}:
        raise error(f"{path.name}: duplicate {name} id {min(twice)}")
    return found
