"""How long each test took when it last ran, so that a session begins with what takes longest.  Results do not depend on it."""
import json
import math
from collections.abc import Mapping

from kernels.cache import default_root
from report.results import write_whole

NAME = "durations.json"


def read() -> dict[str, float]:
    """Seconds of wall time by node id; empty if there is no such file, or no valid one."""
    try:
        found = json.loads((default_root() / NAME).read_bytes())
        return {test: float(seconds) for test, seconds in found.items() if math.isfinite(float(seconds))}
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}


def write(took: Mapping[str, float]) -> None:
    """Replace what is known of these tests."""
    try:
        write_whole(default_root() / NAME, json.dumps({**read(), **{test: round(seconds, 3) for test, seconds in took.items()}}))
    except OSError:
        pass                                # it is a convenience: a cache that cannot be written has been reported
