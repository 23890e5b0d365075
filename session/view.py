"""What a guest is told of the session: a command line that is the same in each run, and the files with its tests."""
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shlex import split

import pytest

from common.project import PROJECT

# Options whose value a guest does not need, and options whose presence alone matters to it.
HOST_OPTIONS = ("--good", "--kernel", "--builder", "--slots", "--deadline", "--mirror", "--device", "--ssh", "--ssh-config", "--seed",
                  "--confirm", "--tables", "--fail-on", "--label", "--shuffle", "--append", "--memory")
HOST_PATHS = ("--report", "--bug-report", "--baseline", "--console")


@contextmanager
def guest_view(config: pytest.Config, files: Iterable[str]) -> Iterator[None]:
    """Hide this host and this session from the configuration that pytest-xdist hands to a worker, and name the files with its tests.

    xdist would make a directory for tmp_path here, and its name means nothing in the guest.  And guests with the same input in each
    run behave the same.
    """
    factory = config.__dict__.pop("_tmp_path_factory")
    invocation = config.invocation_params
    named = [word for word in config.option.file_or_dir if Path(word).name != "conftest.py"]        # vm.own.own_arguments()
    options = [word for word in invocation.args if not any(word is each for each in named)]
    # Pytest puts the variable's options before those of the command line, and a guest has no variables of ours.
    added = split(os.environ.get("PYTEST_ADDOPTS", ""))
    config.invocation_params = replace(invocation, args=(*guest_arguments((*added, *options)), *(str(PROJECT / file) for file in files)))
    try:
        yield
    finally:
        vars(config)["_tmp_path_factory"] = factory
        config.invocation_params = invocation


def guest_arguments(words: Iterable[str]) -> tuple[str, ...]:
    """Pytest's command line without options that guests do not need, and with a dummy value where only presence matters."""
    kept, words = [], iter(words)
    for word in words:
        name, assigned, _value = word.partition("=")
        if name in (*HOST_OPTIONS, *HOST_PATHS) and not assigned:
            next(words, None)
        if name in HOST_PATHS:
            kept.append(f"{name}=there")
        elif name not in HOST_OPTIONS:
            kept.append(word)
    return tuple(kept)
