"""Project files that list things as an array of TOML tables, each with an id."""
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from common.errors import one_line

TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "array", "items": TEXT, "minItems": 1}
COMMIT = {"type": "string", "pattern": "^[0-9a-f]{12,40}$"}     # a commit's hash


class Named(Protocol):
    """What an entry is."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Named)



def table(required: dict[str, Any], optional: dict[str, Any]) -> Draft202012Validator:
    """What a table must and may have, as JSON schemas by key; no other key is allowed."""
    return Draft202012Validator({"type": "object", "properties": {**required, **optional}, "required": list(required),
                                 "additionalProperties": False})


def read_entries(path: Path, name: str, schema: Draft202012Validator, make: Callable[[dict[str, Any]], T],
                 error: type[Exception]) -> list[T]:
    """The results of `make` for each table of the array `name`, which fits the schema; each has an `id`, unique in the file.

    `make` raises ValueError for an unusable table.  Raises `error`, with one line that says where and why.
    """
    try:
        entries = tomllib.loads(path.read_text()).get(name, [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as trouble:
        raise error(one_line(f"{path.name}: {trouble}")) from None
    if not isinstance(entries, list):
        raise error(f"{path.name}: {name!r} is not an array of tables")
    found = []
    for number, entry in enumerate(entries, 1):
        try:
            if misfit := best_match(schema.iter_errors(entry)):
                where = "".join(f"{part}: " for part in misfit.absolute_path if isinstance(part, str))
                raise ValueError(where + " ".join(misfit.message.split()))
            found.append(make(entry))
        except ValueError as trouble:
            identity = entry.get("id", "without an id") if isinstance(entry, dict) else "not a table"
            raise error(one_line(f"{path.name}: {name} {number} ({identity}): {trouble}")) from None
    names = [each.id for each in found]
    if twice := {each for each in names if names.count(each) > 1}:
        raise error(one_line(f"{path.name}: duplicate {name} id {min(twice)}"))
    return found
