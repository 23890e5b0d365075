"""Which Python ./kdrift goes on in."""

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

import pytest

from tests.harness.sessions import ROOT


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    """chosen(name, complete): the system's Python that it goes on in, where that one has this name, and all that it takes or not."""
    loader = SourceFileLoader("starter", str(ROOT / "kdrift"))
    starter = module_from_spec(spec_from_loader("starter", loader))
    loader.exec_module(starter)

    def choose(name, complete):
        python, started = tmp_path / "python3", []
        python.unlink(missing_ok=True)
        python.symlink_to(name)
        (tmp_path / name).touch()
        monkeypatch.setattr(starter, "SYSTEM_PYTHON", str(python))
        monkeypatch.setattr(starter.os.path, "isdir", lambda place: complete and place == f"/usr/lib/{name}/ensurepip")
        monkeypatch.setattr(starter.os, "execv", lambda program, words: started.append((program, words)))
        starter.prefer_the_systems_python()
        assert started in ([], [(str(python), [str(python), *sys.argv])])
        return bool(started)

    return choose


def test_it_is_the_systems_own_where_that_has_what_is_needed(chosen):
    assert [chosen("python3.11", True), chosen("python3.13", True), chosen("python4.0", True)] == [True] * 3
    assert [chosen("python3.9", True), chosen("python3.11", False), chosen("pypy", True)] == [False] * 3


def test_a_virtual_environment_of_the_systems_python_will_do(chosen, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    assert not chosen("python3.11", True)
