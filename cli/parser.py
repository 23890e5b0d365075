"""How ./kdrift reads a command line: what all commands have in common.

Nothing but Python itself is imported here and in cli.commandline: usage and help need nothing installed.
"""
import argparse
import os
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from common.project import PROJECT
from common.status import Exit

OF_PYTEST = "--"                            # what follows is pytest's, --help too


class Parser(argparse.ArgumentParser):
    """Usage errors are one line, with exit status 2."""

    def __init__(self, *, description: str, **settings: Any) -> None:
        super().__init__(description=filled(description), formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
                         **settings)
        self.add_argument("--version", action=ShowVersion, help="show which kdrift this is, and exit")
        self.add_argument("--no-install", action="store_true", default=argparse.SUPPRESS,
                          help="install nothing; stop if something is missing (as with KDRIFT_NO_INSTALL=1)")

    def error(self, message: str) -> NoReturn:
        self.exit(Exit.USAGE, f"kdrift: {message}; see ./{self.prog} --help\n")


class CommandParser(Parser):
    """One command's, with its options in any order among other words.

    `module` has the function run(options), which returns the exit status. `needs` names the sets of programs that must be installed first
    (PROGRAMS in ./kdrift); a function finds them by the options.
    """

    def __init__(self, *, module: str, needs: Sequence[str] | Callable[[argparse.Namespace], Sequence[str]] = (),
                 **settings: Any) -> None:
        super().__init__(**settings)
        self.set_defaults(module=module, needs=needs)
        self._intermixed = False

    def parse_known_args(       # type: ignore[override]  # typeshed has overloads
            self, args: Iterable[str] | None = None, namespace: argparse.Namespace | None = None) -> tuple[Any, list[str]]:
        """Unknown words are an error here, where it is known whose they are."""
        if self._intermixed:
            return super().parse_known_args(args, namespace)
        self._intermixed = True             # up to Python 3.11 the next line comes back here
        try:
            namespace, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixed = False
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, []


class PytestParser(CommandParser):
    """Of a command that runs pytest: all words become the option `words`, as they are, but for those of Parser.

    Arguments that are added are only shown.
    """

    def parse_known_args(       # type: ignore[override]  # typeshed has overloads
            self, args: Iterable[str] | None = None, namespace: argparse.Namespace | None = None) -> tuple[Any, list[str]]:
        words = list(args or [])
        end = words.index(OF_PYTEST) if OF_PYTEST in words else len(words)
        shown = [word for word in words[:end] if word in ("-h", "--help", "--version")]
        namespace, _ = super().parse_known_args(shown[:1], namespace)
        if "--no-install" in words[:end]:
            namespace.no_install = True
        namespace.words = [word for word in words[:end] if word != "--no-install"] + words[end + 1:]
        return namespace, []


class WordsParser(CommandParser):
    """Of a command that runs another: what follows -- becomes the option `words`, as it is."""

    def parse_known_args(       # type: ignore[override]  # typeshed has overloads
            self, args: Iterable[str] | None = None, namespace: argparse.Namespace | None = None) -> tuple[Any, list[str]]:
        words = list(args or [])
        if self._intermixed:
            return super().parse_known_args(words, namespace)
        end = words.index(OF_PYTEST) if OF_PYTEST in words else len(words)
        namespace, unknown = super().parse_known_args(words[:end], namespace)
        namespace.words = words[end + 1:]
        return namespace, unknown


class Commands:
    """The commands of a parser."""

    def __init__(self, whole: argparse.ArgumentParser) -> None:
        self._commands: "argparse._SubParsersAction[CommandParser]" = whole.add_subparsers(     # type: ignore[call-overload]  # a function
            dest="command", metavar="COMMAND", title="commands", required=True, prog=whole.prog,
            parser_class=lambda kind, **settings: kind(**settings))

    def add(self, name: str, line: str, description: str = "", kind: type[CommandParser] = CommandParser,
            **settings: Any) -> CommandParser:
        """`line` is its line in the list of commands; the settings are the parser's."""
        whole = f"{line[0].upper()}{line[1:]}.\n\n{description}"
        return self._commands.add_parser(name, help=line, description=whole, kind=kind, **settings)


class ShowVersion(argparse.Action):
    """--version, for which git is asked only when it is given."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(nargs=0, default=argparse.SUPPRESS, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(version())
        parser.exit()


def version() -> str:
    """kdrift has no releases: its commit is its version."""
    words = ["git", "-C", str(PROJECT), "-c", "safe.directory=*", "log", "-1", "--format=kdrift %h of %cs"]
    try:
        done = subprocess.run(words, env={**os.environ, "GIT_CEILING_DIRECTORIES": str(PROJECT.parent)}, capture_output=True, text=True)
    except OSError:
        return "kdrift (git, which knows its commit, is not installed)"
    return done.stdout.strip() or "kdrift (no git checkout, so its commit is not known)"


def filled(text: str) -> str:
    """Paragraphs as wide as the terminal."""
    width = shutil.get_terminal_size().columns - 2
    return "\n\n".join(textwrap.fill(" ".join(each.split()), width) for each in text.strip().split("\n\n"))


def add_archive_options(command: argparse.ArgumentParser) -> None:
    """Where kernels come from."""
    command.add_argument("--offline", action="store_true", help="use only what is in the cache")
    command.add_argument("--mirror", metavar="URI", help="use this Debian archive instead of the one that apt is configured for; "
                         "its security archive may follow after a space")
    command.add_argument("--allow-unverified", action="store_true", help="boot a Debian kernel even if no signature covers its modules")
