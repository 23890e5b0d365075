"""Each invariant under every test, and each table that no released kernel fails, fails on a kernel that breaks it: `./kdrift selftest
--mutated`. The mutations are in invariants.toml."""

import re
from pathlib import Path

import pytest

from kernels.cache import Cache
from kernels.spec import resolve
from sensitivity.machine import MutantBench
from sensitivity.planned import plans
from tests.harness.sessions import KERNEL

PLANS = plans(Path(__file__).with_name("invariants.toml"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The machine in which the tests have passed, and by function its code."""
    with Cache() as cache:
        kernel = resolve(KERNEL, cache)
    tests = list(dict.fromkeys(test for plan in PLANS for test in plan.tests))
    bench = MutantBench(kernel, tmp_path_factory.mktemp("bench"), tmp_path_factory.mktemp("state"), [*tests, "--tables", "all"])
    symbols, names, first = bench.study(sorted({plan.function for plan in PLANS}))
    assert {bench.tests[index]: seen.message for index, seen in first.items() if seen.outcome != "passed"} == {}
    return bench, bench.read(symbols), names


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("plan", PLANS, ids=[plan.rule for plan in PLANS])
def test_what_a_kernel_breaks_is_noticed(prepared, plan):
    """The tests pass on the kernel as it is, and the last says which rule the changed one breaks."""
    bench, code, names = prepared
    indexes = [bench.tests.index(test) for test in plan.tests]
    with bench.mutated(indexes, plan.mutant(code, names), seed=1) as (_machine, conversation):
        *_before, last = bench.results(conversation, indexes)
    assert last.outcome == "failed"
    assert re.search(plan.says, last.message), last.message
