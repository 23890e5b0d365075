"""Labels: the names of the columns. Every result is kept by its kernel's label, so labels are unique."""
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import SpecError

LONGEST = 64                                # characters of a chosen label


class LabelError(SpecError):
    """A label cannot be used; the message says which and why in one line."""


@dataclass(frozen=True)
class Named:
    """What a label stands for.  `text` is what the user typed, `path` its file or tree, if any.

    `release` and `key` (equal for equal contents) are empty if unknown.  `chosen` is the user's own label.
    """

    text: str
    path: Path | None = None
    release: str = ""
    key: str = ""
    chosen: str = ""


def check_label(label: str) -> str:
    """The label, if it is valid.  Raises LabelError."""
    if not label.strip():
        raise LabelError("empty label")
    if not label.isprintable():
        raise LabelError(f"label {label!r} contains unprintable characters")
    if label != label.strip():
        raise LabelError(f"label {label!r} begins or ends with a space")
    if len(label) > LONGEST:
        raise LabelError(f"label {label[:20]!r}... has {len(label)} characters, the limit is {LONGEST}")
    return label


def split_label(word: str, understand: Callable[[str], object]) -> tuple[str, str]:
    """Split `WHAT=LABEL`; the label is empty if there is none.

    A path may hold a "=": a word that is understood as a whole has no label, and a label given so has no "/".  `understand` raises
    ValueError for an unknown word. Raises ValueError if neither form is understood, LabelError for an invalid label.
    """
    what, equals, label = word.rpartition("=")
    if not equals or "/" in label or what.endswith(",modules"):
        understand(word)
        return word, ""
    try:
        understand(word)
        return word, ""
    except ValueError:
        understand(what)
    return what, check_label(label)


def labels_of(columns: Sequence[Named]) -> list[str]:
    """A label for each column: the chosen one, or else its name; equal names get the shortest text that tells them apart.

    That is a longer part of the path, or else the release, or else the contents' key; equal kernels are numbered.  Raises LabelError
    for a chosen label that is taken.
    """
    names = [column.chosen or _name(column, 1) for column in columns]
    open_ = [number for number, column in enumerate(columns) if not column.chosen]
    for longer in (_by_path, _by_release, _by_key):
        for group in _groups(names, open_):
            for number, name in zip(group, longer([columns[number] for number in group], [names[number] for number in group]), strict=True):
                names[number] = name
    for column in columns:
        if column.chosen and names.count(column.chosen) > 1:
            raise LabelError(f"duplicate label {column.chosen!r} ({column.text}): another column has it")
    for number in open_:
        names[number] = numbered(names[number], names[:number])
    return names


def numbered(name: str, taken: Sequence[str]) -> str:
    """The name, followed by a number if it is taken: `6.12 (2)`."""
    candidates = (f"{name} ({count})" if count > 1 else name for count in range(1, len(taken) + 2))
    return next(each for each in candidates if each not in taken)


def same_kernels(labels: Sequence[str], columns: Sequence[Named]) -> list[str]:
    """A line for each kernel that was given in several ways."""
    lines = []
    for key in dict.fromkeys(column.key for column in columns if column.key):
        same = [number for number, column in enumerate(columns) if column.key == key]
        if len({columns[number].text for number in same}) > 1:
            lines.append(f"{' and '.join(labels[number] for number in same)} are the same kernel")
    return lines


def _groups(names: list[str], open_: list[int]) -> list[list[int]]:
    """The columns, by number, that share a name and may get another."""
    count = Counter(names[number] for number in open_)
    return [[number for number in open_ if names[number] == name] for name in count if count[name] > 1]


def _name(column: Named, parts: int, short: bool = True) -> str:
    """The last parts of a path, if `short` without those between the first and the last; a column without a path keeps its text."""
    if column.path is None:
        return column.text
    found = Path(os.path.normpath(column.path)).parts[-parts:]
    return os.path.join(*([found[0], "...", found[-1]] if short and len(found) > 2 else found))


def _by_path(columns: list[Named], names: list[str]) -> list[str]:
    places = {os.path.normpath(column.path) if column.path else column.text for column in columns}
    if len(places) == 1:
        return names
    longest = max(len(Path(place).parts) for place in places)
    found = ([_name(column, parts, short) for column in columns] for parts in range(2, longest + 1) for short in (True, False))
    return next((each for each in found if len(set(each)) == len(places)), names)


def _by_release(columns: list[Named], names: list[str]) -> list[str]:
    if len({column.release for column in columns if column.release}) < 2:
        return names
    return [f"{name} {column.release}".rstrip() for column, name in zip(columns, names, strict=True)]


def _by_key(columns: list[Named], names: list[str]) -> list[str]:
    if len({column.key for column in columns if column.key}) < 2:
        return names
    return [f"{name} {column.key[:8]}".rstrip() for column, name in zip(columns, names, strict=True)]
