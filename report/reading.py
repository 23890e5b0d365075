"""Read results files of earlier runs."""
import json
import re
from collections import Counter
from functools import cache
from itertools import islice
from pathlib import Path

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from common.errors import one_line
from report.results import SCHEMA, KernelResult, Run, TestResult

SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")        # half a character, which no other file could have
MOST_ERRORS = 50                            # among which the one is sought that says most: a file may have a million
SCHEMA_FILE = Path(__file__).with_name("results.schema.json")


class ResultsError(Exception):
    """A file cannot be used; the message says which and why in one line."""


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))


def read(path: Path) -> tuple[Run, list[KernelResult]]:
    """The run and the kernels of a results.json.  Raises ResultsError if it is damaged, foreign, or of another schema."""
    try:
        document = json.loads(data := path.read_bytes())
        if SURROGATE.search(data):
            json.dumps(document, ensure_ascii=False).encode()
    except OSError as error:
        raise ResultsError(one_line(f"{path}: {error.strerror}")) from None
    except (ValueError, RecursionError) as error:
        raise ResultsError(one_line(f"{path}: not JSON: {error}")) from None
    version = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise ResultsError(f"{path}: not a kdrift results file")
    if version != SCHEMA:
        advice = "update kdrift" if version > SCHEMA else "run the kernel again"
        raise ResultsError(f"{path}: schema {version}, but this kdrift reads schema {SCHEMA}: {advice}")
    if wrong := best_match(islice(_validator().iter_errors(document), MOST_ERRORS)):
        raise ResultsError(f"{path}: {wrong.json_path}: {_short(wrong.message)}")
    kernels = [KernelResult(**{**kernel, "tests": [TestResult(**test) for test in kernel["tests"]]}) for kernel in document["kernels"]]
    for kernel in kernels:
        kernel.label = one_line(kernel.label)
    labels = [kernel.label for kernel in kernels]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise ResultsError(one_line(f"{path}: duplicate kernel label {min(twice)}"))
    for kernel in kernels:
        names = Counter([*(test.id for test in kernel.tests), *kernel.unrun])
        if twice := {name for name, count in names.items() if count > 1}:
            raise ResultsError(one_line(f"{path}: duplicate test {_short(min(twice))} of kernel {kernel.label}"))
    return document["run"], kernels


def _short(message: str) -> str:
    return one_line(" ".join(message.split())[:200])
