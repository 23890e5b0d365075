"""What results say of the machine that made them, its user and its directories: left out of what is written to be shared."""
import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from report.results import KernelResult, Run
from report.verdict import Comparison

# A directory in an argument, up to the last component; what is relative names something of the project.
DIRECTORY = re.compile(r"(?<![\w./~-])~?(?:/[^/\s,=]+)*/(?=[^/\s,=]+)")
PLACE = re.compile(r"[\w.+-]+@(?=[\w.\[])")         # the user in an argument of --ssh


class Hidden:
    """`places` maps directories to what is written instead, `names` are those of the user and the machine."""

    def __init__(self, places: Mapping[str, str], names: Iterable[str]) -> None:
        self.places = {place: places[place] for place in sorted(places, key=len, reverse=True) if len(place) > 1}
        words = [rf"(?<![\w.])(?P<place>{'|'.join(map(re.escape, self.places)) or '(?!)'})(?![\w.-])",
                 rf"(?<![\w.:/-])(?:{'|'.join(map(re.escape, sorted(names))) or '(?!)'})(?![\w-])"]
        self.pattern = re.compile("|".join(words))

    def text(self, text: str) -> str:
        return self.pattern.sub(lambda found: self.places[found["place"]] if found["place"] else "HIDDEN", text)

    def argument(self, text: str) -> str:
        """The text with each path's last component alone."""
        return self.text(PLACE.sub("", DIRECTORY.sub("", text)))

    def run(self, run: Run) -> Run:
        return {**run, "arguments": [self.argument(each) for each in run["arguments"]]}

    def test(self, name: str) -> str:
        """The id of a test. What is in the project is named by its path there, anything else by its whole path."""
        file, colons, rest = name.partition("::")
        return f"{self.text(file)}{colons}{rest}" if file.startswith("/") else name

    def copied(self, kernels: Sequence[KernelResult],
               comparisons: Sequence[Comparison]) -> tuple[Sequence[KernelResult], Sequence[Comparison]]:
        """Copies of kernels and comparisons, which share the results of tests."""
        self._tests = {name for kernel in (*kernels, *(each for pair in comparisons for each in (pair.old, pair.new)))
                       for name in (*kernel.by_id(), *kernel.unrun)}
        found: tuple[Sequence[KernelResult], Sequence[Comparison]] = self._walk(copy.deepcopy((kernels, comparisons)), set())
        return found

    def _walk(self, value: Any, seen: set[int]) -> Any:
        if isinstance(value, str):
            return self.test(value) if value in self._tests else self.text(value)
        if isinstance(value, tuple) and type(value) is tuple:
            return tuple(self._walk(each, seen) for each in value)
        if id(value) in seen:
            return value
        seen.add(id(value))
        if isinstance(value, list):
            value[:] = [self._walk(each, seen) for each in value]
        elif isinstance(value, dict):
            value.update({name: self._walk(each, seen) for name, each in value.items() if name != "base64"})
        elif hasattr(value, "__dict__") and type(value).__module__.startswith("report."):
            for name, each in list(vars(value).items()):
                vars(value)[name] = self.argument(each) if name == "spec" else self._walk(each, seen)
        return value
