"""The sources' bytecode and the inventory of the tests, after edits: as if made from nothing, but only what has changed is read again."""

import io
import itertools
import marshal
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from common.errors import CacheError
from kernels.cache import Cache
from vm import payload

PARAMETERS = "import pytest\n\n\n@pytest.fixture(params={}, ids=str)\ndef number(request):\n    return request.param\n"
FILES = {
    "conftest.py": "import fixtures\nimport netns\n",
    "pytest.ini": "[pytest]\n",
    "fixtures/__init__.py": "",
    "netns/__init__.py": "",
    "tests/a/conftest.py": PARAMETERS.format([1, 2]),
    "tests/a/sizes.py": "SIZES = [10, 20]\n",
    "tests/a/test_one.py": "def test_one(number):\n    assert number\n",
    "tests/a/test_sizes.py": "import pytest\nfrom sizes import SIZES\n@pytest.mark.parametrize('size', SIZES)\ndef test_size(size): pass\n",
    "tests/b/test_two.py": "CASES = ['x']\n\n\ndef test_two():\n    assert CASES\n",
    "tests/b/test_three.py": "import pytest\nimport test_two\n@pytest.mark.parametrize('two', test_two.CASES)\ndef test_three(two): pass\n",
    "tests/b/test_broken.py": "def test_broken(:\n",
    "tests/harness/test_own.py": "def test_own(): pass\n",
}
EDITS = {
    "a test": {"tests/a/test_one.py": "def test_six(number):\n    assert number\n"},
    "another test": {"tests/b/test_four.py": "def test_four(): pass\n"},
    "a test less": {"tests/a/test_one.py": None},
    "a broken test": {"tests/a/test_one.py": "def test_one(:\n"},
    "a mended test": {"tests/b/test_broken.py": "def test_mended(): pass\n"},
    "a conftest.py": {"tests/a/conftest.py": PARAMETERS.format([3, 4])},
    "a module": {"tests/a/sizes.py": "SIZES = [30]\n"},
    "a test that another imports": {"tests/b/test_two.py": "CASES = ['y', 'z']\n\n\ndef test_two():\n    assert CASES\n"},
    "a library": {"fixtures/__init__.py": "MORE = 1\n"},
    "a test of the harness": {"tests/harness/test_own.py": "def test_owned(): pass\n"},
}
moments = itertools.count(1_700_000_000_000_000_000)


def write(project, files):
    """All within one second."""
    for name, text in files.items():
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
            os.utime(path, ns=(next(moments),) * 2)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(payload, "PROJECT", tmp_path / "project")
    write(tmp_path / "project", FILES)
    return tmp_path / "project"


@pytest.fixture
def collected(monkeypatch):
    """The files and directories that pytest is given, in one list for each time."""
    found, run = [], subprocess.run

    def noted(words, **settings):
        places = [Path(settings["cwd"], word) for word in words]
        found.append([str(place.relative_to(payload.PROJECT)) for place in places if place.is_dir() or place.suffix == ".py"])
        return run(words, **settings)

    monkeypatch.setattr(subprocess, "run", noted)
    return found


def made(directory):
    """What a session with this cache has: the inventory, and what is sent to a machine, with code instead of bytecode."""
    with Cache(directory) as cache, tarfile.open(fileobj=io.BytesIO(payload.pack_sources(cache))) as sent:
        files = {member.name: sent.extractfile(member).read() for member in sent}
        return payload.inventory(cache), {name: marshal.loads(data[16:]) if name.endswith(".pyc") else data for name, data in files.items()}


@pytest.mark.parametrize("edit", EDITS)
def test_after_an_edit_all_is_as_if_made_from_nothing(project, tmp_path, edit):
    before = made(tmp_path / "cache")
    write(project, EDITS[edit])
    after = made(tmp_path / "cache")
    assert after == made(tmp_path / "fresh")
    assert after != before


def test_an_edited_test_is_the_only_one_that_is_read_again(project, tmp_path, collected):
    made(tmp_path / "cache")
    write(project, {**EDITS["a test"], **EDITS["a test of the harness"], **EDITS["another test"]})
    made(tmp_path / "cache")
    assert collected == [["tests/a", "tests/b"], ["tests/a/test_one.py", "tests/b/test_four.py"]]


@pytest.mark.parametrize("edit", ["a test less", "a test of the harness"])
def test_nothing_is_read_again_where_no_test_is_new(project, tmp_path, collected, edit):
    made(tmp_path / "cache")
    write(project, EDITS[edit])
    made(tmp_path / "cache")
    assert collected == [["tests/a", "tests/b"]]


@pytest.mark.parametrize("edit, changes", [("a test", True), ("a conftest.py", True), ("a module", True), ("a library", True),
                                           ("a test that another imports", False), ("a test of the harness", False)])
def test_key_of_the_content_changes_with_what_the_tests_of_a_file_may_use(project, edit, changes):
    before = payload.content_key(["tests/a/test_one.py"])
    write(project, {name: (project / name).read_text() for name in FILES})
    assert payload.content_key(["tests/a/test_one.py"]) == before
    write(project, EDITS[edit])
    assert (payload.content_key(["tests/a/test_one.py"]) != before) == changes


def test_bytecode_of_another_python_is_not_taken_over(project, tmp_path, monkeypatch, collected):
    made(tmp_path / "cache")
    monkeypatch.setattr(payload.pytest, "__version__", "1.0")
    made(tmp_path / "cache")
    assert collected == [["tests/a", "tests/b"]] * 2


def test_all_sources_of_tests_have_bytecode(project, tmp_path):
    """Where pytest can read them; of the tests of the harness no machine has any."""
    _listed, sent = made(tmp_path / "cache")
    inside = {name.removeprefix(f"{project.relative_to('/')}/") for name in sent}
    compiled = {name.replace("__pycache__/", "").partition(".cpython-")[0] + ".py" for name in inside if name.endswith(".pyc")}
    assert compiled == {name for name in FILES if name.endswith(".py")} - {"tests/b/test_broken.py", "tests/harness/test_own.py"}


@pytest.mark.parametrize("end, said", [("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"), ("os._exit(3)", "status 3")])
def test_what_a_killed_pytest_has_left_is_not_kept(project, tmp_path, end, said):
    write(project, {"tests/b/test_three.py": f"import os, signal\n{end}\n"})
    with pytest.raises(CacheError, match=rf"^pytest, which compiles the tests for the machines, failed \({said}\): "):
        made(tmp_path / "cache")

    write(project, {"tests/b/test_three.py": FILES["tests/b/test_three.py"]})
    assert made(tmp_path / "cache") == made(tmp_path / "fresh")
