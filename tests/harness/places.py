"""A pytest plugin of these tests: temporary directories with short names."""

from pathlib import Path

import pytest


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without the test's name: the path of a socket has room for 107 bytes, and an xdist worker's directory takes more of them."""
    return tmp_path_factory.mktemp("t")
