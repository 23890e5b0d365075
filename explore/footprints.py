"""The footprints that a guest sends as its kernel gives them, parsed."""
import base64
from collections.abc import Mapping
from typing import Any

from netns.observe.counters import Counters, nonzero_of_host


def evaluated(frames: str, texts: Mapping[str, dict[str, str]]) -> dict[str, Any]:
    """What report.traffic takes, of netns.observe.footprint.unread(). Raises ValueError and LookupError for what is none."""
    return {"frames": base64.b64decode(frames),
            "counters": nonzero_of_host({where: Counters.parsed(files) for where, files in texts.items()})}
