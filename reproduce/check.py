"""Check that exported cases hold all that they need, with an interpreter that has nothing of kdrift."""
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from reproduce.collect import CannotExport, Manifest
from reproduce.pack import pack
from reproduce.transform import TooNew


def check(cases: Sequence[Manifest], python: str = sys.executable) -> dict[str, str]:
    """By id, why cases do not resolve in their file.  The cases of one module share a file.  Raises CannotExport."""
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as directory:
        files = []
        for module, group in groupby(sorted(cases, key=_module_of), key=_module_of):
            own = list(group)
            try:
                file = Path(directory, f"{module}.pyz")
                file.write_bytes(pack(own))
                files.append(str(file))
            except TooNew as error:
                failed |= {case.id: str(error) for case in own}
        # -I and another directory: nothing of the project, the user or the environment can help.
        words = [python, "-I", files[0], "--check", *files]
        done = subprocess.run(words, cwd=directory, capture_output=True, text=True, env={"PATH": os.defpath})
    failed |= {line["id"]: line["why"] for line in map(json.loads, done.stdout.splitlines())}
    if done.returncode and not failed:
        raise CannotExport(f"the check itself failed: {(done.stderr.strip().splitlines() or [str(done.returncode)])[-1]}")
    return failed


def _module_of(case: Manifest) -> str:
    return case.module

