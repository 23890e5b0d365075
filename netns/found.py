"""What was found on a host, under a name: whoever wants one packet and gets none, or three, is told of which host and which they are."""

from collections.abc import Callable, Hashable, Iterable

from netns.errors import WrongNumber

# What a message lists of what there is.
_MOST = 20


class Found(list):
    """A list of what was found; `what` is its name in messages: "tcp packets that client sent"."""

    def __init__(self, what: str, items: Iterable = ()) -> None:
        super().__init__(items)
        self.what = what

    def exactly(self, count: int) -> list:
        """The items, which are so many, to be unpacked. Raises WrongNumber with those that there are."""
        if len(self) != count:
            raise self._wrong(str(count))
        return list(self)

    def only(self) -> object:
        """The one item. Raises WrongNumber."""
        return self.exactly(1)[0]

    def some(self) -> "Found":
        """These, which are one or more: for what asks for the largest. Raises WrongNumber."""
        if not self:
            raise self._wrong("at least 1")
        return self

    def which(self, what: str, satisfied: Callable[[object], bool]) -> "Found":
        """Those that satisfy; `what` continues the name: "with the SYN flag"."""
        return Found(f"{self.what} {what}", filter(satisfied, self))

    def __getitem__(self, index: object) -> object:
        """Raises WrongNumber for an index that there is not."""
        try:
            return super().__getitem__(index)
        except IndexError:
            raise self._wrong(f"at least {index + 1 if index >= 0 else -index}") from None

    def _wrong(self, expected: str) -> WrongNumber:
        listed = "".join(f"\n  {item}" for item in self[:_MOST])
        more = f"\n  and {len(self) - _MOST} more" if len(self) > _MOST else ""
        return WrongNumber(f"{self.what}: expected {expected}, found {len(self)}{':' if self else ''}{listed}{more}")


class FoundBy(dict):
    """What was found, by a key; `what` is its name in messages: "resets that client sent, by port"."""

    def __init__(self, what: str, items: object = ()) -> None:
        super().__init__(items)
        self.what = what

    def __missing__(self, key: Hashable) -> object:
        raise WrongNumber(f"{self.what}: none for {key!r}, found {dict(self)}")


def what_of(items: Iterable) -> str:
    """The name of what was found, for what is chosen from it."""
    return getattr(items, "what", "what was found")
