"""A process two PID namespaces deep."""

from contextlib import ExitStack

import pytest

from fixtures.pidns import Nested


@pytest.fixture
def nested():
    with ExitStack() as stack:
        yield Nested(stack)
