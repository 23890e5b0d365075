"""Named collections of what was found on a host: the error for a wrong count names the host and lists the items."""

from collections.abc import Callable, Hashable, Iterable

from netns.errors import WrongCount

# Items that a message lists.
_MOST = 20


class NamedList(list):
    """A list of what was found; `what` names it in messages: "tcp packets that client sent"."""

    def __init__(self, what: str, items: Iterable = ()) -> None:
        super().__init__(items)
        self.what = what

    def exactly(self, count: int) -> list:
        """The items, exactly `count` of them, ready to unpack. Raises WrongCount with the items."""
        if len(self) != count:
            raise self._wrong(str(count))
        return list(self)

    def only(self) -> object:
        """The only item. Raises WrongCount."""
        return self.exactly(1)[0]

    def some(self) -> "NamedList":
        """The same list, at least one item long, for max() and the like. Raises WrongCount."""
        if not self:
            raise self._wrong("at least 1")
        return self

    def which(self, what: str, satisfied: Callable[[object], bool]) -> "NamedList":
        """The items that satisfy it; `what` continues the name: "with the SYN flag"."""
        return NamedList(f"{self.what} {what}", filter(satisfied, self))

    def __getitem__(self, index: object) -> object:
        """Raises WrongCount for an index out of range."""
        try:
            return super().__getitem__(index)
        except IndexError:
            raise self._wrong(f"at least {index + 1 if index >= 0 else -index}") from None

    def _wrong(self, expected: str) -> WrongCount:
        listed = "".join(f"\n  {item}" for item in self[:_MOST])
        more = f"\n  and {len(self) - _MOST} more" if len(self) > _MOST else ""
        return WrongCount(f"{self.what}: expected {expected}, found {len(self)}{':' if self else ''}{listed}{more}")


class NamedDict(dict):
    """What was found, by key; `what` names it in messages: "resets that client sent, by port". A missing key raises WrongCount."""

    def __init__(self, what: str, items: object = ()) -> None:
        super().__init__(items)
        self.what = what

    def __missing__(self, key: Hashable) -> object:
        raise WrongCount(f"{self.what}: no entry for {key!r}, found {dict(self)}")


def name_of(items: Iterable) -> str:
    """The name of a NamedList, for a selection from it."""
    return getattr(items, "what", "the packets")
