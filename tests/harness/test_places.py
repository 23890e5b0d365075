"""A session from places whose names have spaces, commas, quotes and letters beyond ASCII."""

import tempfile
from pathlib import Path

from kernels.cache import default_root
from tests.harness.sessions import KERNEL, run

ODD = "a b,c'd/ü"


def test_cache_temporary_directory_and_report_may_be_anywhere():
    """The cache is the usual one under another name, so that nothing is fetched or built for it."""
    with tempfile.TemporaryDirectory() as short:        # the path of a socket has room for 107 bytes
        place = Path(short, ODD)
        place.mkdir(parents=True)
        (place / "cache").symlink_to(default_root())
        session = run(place, "test_outcomes.py", "-k", "test_passes", KDRIFT_CACHE=str(place / "cache"))
        assert session.outcomes(KERNEL) == {"test_passes": "passed"}
        assert session.status == 0
