"""What README and docs say can be typed and followed: commands, options, tests, links."""

import ast
import builtins
import re
import shlex
import subprocess
import sys
import textwrap

import pytest
from _pytest.config import get_config

import netns
from cli import commandline
from common.project import PROJECT

PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^ {4}(?:\$ )?(?:[A-Z_]+=\S+ )*\./kdrift (.+)$|`\./kdrift ([^`]+)`", re.MULTILINE)
# A row of "I want to ... -> use": its calls and names, and the files that they come from.
USE = re.compile(r"^\| [^|]+ \| (.+) \| (`(?:netns|fixtures)/[^|]+) \|$", re.MULTILINE)
WRITING = PROJECT / "docs/writing-tests.md"
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)")


def commands():
    """The words of each command, without comments, by the page and the command as they stand there."""
    for page in PAGES:
        for match in COMMAND.finditer(page.read_text()):
            text = match[1] or match[2]
            words = shlex.split(text, comments=True)
            if words and not any(word.startswith("[") or "..." in word for word in words):       # those show a form
                yield f"{page.name}: {text.partition('  ')[0]}", words


COMMANDS = dict(commands())


@pytest.fixture(scope="module")
def tests():
    """The ids of the suite's tests."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-c", "pytest.ini", "--collect-only", "-q", "tests"], cwd=PROJECT,
                          capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_pages_have_commands():
    assert len(COMMANDS) > 20


@pytest.fixture
def parser(monkeypatch):
    """Pytest's, with the options of its plugins and the suite's."""
    monkeypatch.chdir(PROJECT)
    config = get_config(["-c", str(PROJECT / "pytest.ini")])
    config.pluginmanager.load_setuptools_entrypoints("pytest11")
    config.pluginmanager.import_plugin("conftest")
    config.pluginmanager.import_plugin("tests.harness.inputs")
    return config._parser


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_a_command_exist(command, parser):
    words = COMMANDS[command]
    if words in ([add.__name__] for add in commandline.COMMANDS):
        return                              # the command's name alone
    try:
        options = commandline.parse(words)
    except SystemExit as ended:
        assert not ended.code               # --help
    else:
        if words[0] == "run":
            return                          # its words are a command of the user's
        unknown = parser.parse_known_and_unknown_args(getattr(options, "words", []))[1]
        assert unknown == [] or words[0] == "selftest" and unknown in (["--docs"], ["--tree"], ["--mutated"])


def test_every_command_is_in_a_page():
    """./kdrift --help is the list; a command that no page has cannot be found from the README."""
    text = "".join(page.read_text() for page in PAGES)
    assert [add.__name__ for add in commandline.COMMANDS if f"./kdrift {add.__name__}" not in text] == []


def test_every_option_of_the_suite_is_in_the_table(parser):
    table = (PROJECT / "docs/options.md").read_text()
    names = [option.names()[0] for option in parser.getgroup("kdrift").options]
    assert len(names) > 20
    assert [name for name in names if f"`{name}" not in table and f", `{name}" not in table] == []


@pytest.mark.parametrize("command", [command for command, words in COMMANDS.items() if "-k" in words])
def test_keywords_of_a_command_choose_tests(command, tests):
    """By the words alone: `or` and `and` need all of them to be somewhere."""
    words = COMMANDS[command]
    for word in words[words.index("-k") + 1].replace("(", " ").replace(")", " ").split():
        assert word in ("or", "and", "not") or any(word in test for test in tests)


@pytest.mark.parametrize("command", [command for command, words in COMMANDS.items() if any("::" in word for word in words)])
def test_a_test_that_a_command_names_exists(command, tests):
    assert {word for word in COMMANDS[command] if "::" in word} <= set(tests)


def anchor(heading):
    """As a forge makes it of a heading."""
    return "#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for path, fragment in LINK.findall(page.read_text()):
        target = (page.parent / path) if path else page
        assert target.exists(), path
        if fragment:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert fragment in map(anchor, headings), fragment


def test_the_test_that_is_shown_is_the_one_in_tests():
    shown = (PROJECT / "tests/tcp/test_advmss.py").read_text()
    assert textwrap.indent(shown, "    ") in WRITING.read_text()


def test_the_table_that_is_shown_is_the_one_that_the_harness_runs():
    shown = (PROJECT / "tests/harness/cases/test_table.py").read_text()
    assert textwrap.indent(shown, "    ") in WRITING.read_text()


def defined(file):
    """The functions, classes, methods, fields and constants of a module."""
    for node in ast.walk(ast.parse((PROJECT / file).read_text())):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_the_index_names_what_the_modules_offer():
    """What stands before a parenthesis, and names that stand alone; but for marks, which pytest.ini has."""
    rows = USE.findall(WRITING.read_text())
    assert len(rows) > 60
    missing = []
    for use, files in rows:
        code = re.findall(r"`([^`]+)`", use)
        named = {name for each in code for name in re.findall(r"(?<!mark\.)(?<!\w)(\w+)\(|^(\w+)$", each)}
        offered = {name for file in re.findall(r"`([^`]+)`", files) for name in defined(file)} | set(netns.__all__) | set(dir(builtins))
        missing += [(name, files) for name in map("".join, named) if name not in offered]
    assert missing == []
