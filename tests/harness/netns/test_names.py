"""A name that a test's writer meets means one thing."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[3]


def classes(files):
    """Places of each class, by its name."""
    places = defaultdict(list)
    for path in files:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(ROOT)))
    return places


def test_no_two_classes_of_netns_fixtures_and_tests_share_a_name():
    files = [path for room in ("netns", "fixtures", "tests") for path in (ROOT / room).rglob("*.py") if "harness" not in path.parts]
    places = classes(files)

    assert len(places) > 50
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
