"""How a kernel's tests are cut into shards, which machine comes next, and which files pytest may leave out."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given, settings, strategies as st

from common.project import PROJECT
from kernels.cache import Cache
from session import durations
from session.places import HERE, Place
from session.scheduler import LEAST, PER_SLOT, KernelScheduling, Shard, cut, shuffle
from vm.inventory import Skim
from vm.payload import inventory

# The same examples in every run, and no record of those of earlier ones.
ALIKE = settings(max_examples=100, derandomize=True, database=None, deadline=None)
LAST = ["tests/leftovers/test_a.py::test_last"]


class Node:
    """A worker, as far as the scheduler looks at it."""

    def __init__(self, shard):
        self.gateway = SimpleNamespace(spec=SimpleNamespace(shard=shard.number, kernel=shard.kernel))
        self.sent = []
        self.shutting_down = False

    def send_runtest_some(self, indices):
        self.sent += indices

    def shutdown(self):
        self.shutting_down = True


def begin(shard, place):
    """Its machine is on its way."""
    shard.node, shard.place = Node(shard), place
    place.shards[shard.number] = shard.kernel


def start(scheduling, shard, place=None):
    """Its machine runs."""
    begin(shard, place or Place(HERE, 1, "ab"))
    scheduling.add_node(shard.node)
    return shard.node


sizes = st.lists(st.integers(1, 3 * LEAST), max_size=30)
slots = st.integers(1, 64)


def node_ids(sizes):
    return [f"tests/f{number}/test_f.py::test_{test}" for number, size in enumerate(sizes) for test in range(size)]


@ALIKE
@given(sizes, slots, st.sampled_from([[], LAST]))
def test_each_test_is_in_one_shard_in_order_and_last_ones_end_each(sizes, slots, last):
    tests = node_ids(sizes)
    shards = cut(tests, slots, last)
    assert [test for shard in shards for test in shard[:len(shard) - len(last)]] == tests
    assert all(shard[len(shard) - len(last):] == last for shard in shards)
    assert all(shards)


@ALIKE
@given(sizes, slots)
def test_shards_have_whole_files_and_differ_by_no_more_than_the_largest(sizes, slots):
    shards = cut(node_ids(sizes), slots)
    most = min(PER_SLOT * slots, math.ceil(sum(sizes) / LEAST))
    assert len(shards) <= most
    files = [test.partition("::")[0] for shard in shards for test in dict.fromkeys(each.partition("::")[0] for each in shard)]
    assert len(files) == len(set(files)) == len(sizes)
    for shard in shards:
        assert slots == 1 or len(shard) <= sum(sizes) / most + max(sizes)


@ALIKE
@given(sizes)
def test_one_slot_has_one_shard(sizes):
    """Each machine takes some seconds to start."""
    tests = node_ids(sizes)
    assert cut(tests, slots=1) == [tests] * bool(tests)


def test_every_slot_of_a_large_machine_has_shards():
    assert len(cut(node_ids([10] * 140), slots=4)) >= 2 * 4


@ALIKE
@given(sizes, st.integers(1, 1000))
def test_shuffled_shards_have_the_same_tests(sizes, seed):
    tests = node_ids(sizes)
    shards = shuffle(tests, LAST, seed)
    assert sorted(test for shard in shards for test in shard[:-1]) == sorted(tests)
    assert all(shard[-1:] == LAST for shard in shards)
    assert shuffle(tests, LAST, seed) == shards


def test_shuffling_depends_on_the_seed():
    tests = node_ids([300])
    assert shuffle(tests, [], 1) != shuffle(tests, [], 2)


def test_first_machine_of_each_kernel_comes_first_then_the_longest_shard():
    """Several kernels' saved states are made at the same time, and a kernel's other machines do not wait for its own with a slot."""
    shards = [Shard("0", "a", ["a1"]), Shard("1", "a", ["a2"]), Shard("2", "a", ["a3"]), Shard("3", "b", ["b1"])]
    scheduling = KernelScheduling(shards, {"a1": 1.0, "a2": 2.0, "a3": 3.0})
    here = Place(HERE, 4, "ab")
    first, _here = scheduling.next([here])
    begin(first, here)
    second, _here = scheduling.next([here])
    begin(second, here)
    assert (first.number, second.number) == ("2", "3")
    assert scheduling.next([here]) is None                  # until one of their machines has answered
    scheduling.add_node(first.node)
    third, _here = scheduling.next([here])
    assert third.number == "1"
    begin(third, here)
    begin(shards[0], here)
    assert scheduling.next([here]) is None


def test_kernels_share_the_slots():
    shards = [Shard(str(number), "ab"[number % 2], [f"t{number}"]) for number in range(8)]
    scheduling = KernelScheduling(shards, {f"t{number}": 9.0 for number in range(0, 8, 2)})
    started, here = [], Place(HERE, 8, "ab")
    while found := scheduling.next([here]):
        start(scheduling, *found)
        started.append(found[0].kernel)
    assert started == ["a", "b"] * 4


def test_one_kernels_shards_are_dealt_to_all_places_by_their_slots_the_longest_first():
    scheduling = KernelScheduling([Shard(str(number), "a", [f"t{number}"]) for number in range(20)],
                                  {f"t{number}": float(number) for number in range(20)})
    here, builder, other = Place(HERE, 2, "a"), Place("builder", 4, "ab"), Place("other", 4, "b")
    started = []
    while found := scheduling.next([here, builder, other]):
        start(scheduling, *found)
        started.append(found)
    assert [shard.number for shard, _place in started] == ["19", "18", "17", "16", "15", "14"]
    assert [place.name for _shard, place in started[:3]] == [HERE, "builder", "builder"]
    assert [len(place.shards) for place in (here, builder, other)] == [2, 4, 0]


def test_a_kernels_first_machine_at_each_place_comes_alone():
    """It may have to make the saved state there."""
    scheduling = KernelScheduling([Shard(str(number), "a", ["t"]) for number in range(9)], {})
    here, builder = Place(HERE, 2, "a"), Place("builder", 2, "a")
    for _ in range(2):
        begin(*scheduling.next([here, builder]))
    assert scheduling.next([here, builder]) is None
    assert [list(place.shards) for place in (here, builder)] == [["0"], ["1"]]
    scheduling.add_node(scheduling.shards["1"].node)
    assert scheduling.next([here, builder])[1] is builder


@pytest.mark.parametrize("trouble", [{"lost": "Connection closed"}, {"unfit": {"a": "no space left"}}], ids=str)
def test_a_place_with_a_trouble_gets_no_more_of_the_kernels_shards(trouble):
    scheduling = KernelScheduling([Shard(str(number), "a", ["t"]) for number in range(4)], {})
    here, builder = Place(HERE, 2, "ab", proven={"a"}), Place("builder", 8, "ab", proven={"a"}, **trouble)
    while found := scheduling.next([here, builder]):
        begin(*found)
    assert (len(here.shards), len(builder.shards)) == (2, 0)
    assert builder.takes("b") is ("lost" not in trouble)


def test_crash_costs_its_shard_only():
    """The test runs again with the rest of its shard; the tests of the other machine go on."""
    one, two = Shard("0", "a", ["f::1", "f::2", "f::3"]), Shard("1", "a", ["g::1"])
    scheduling = KernelScheduling([one, two], {})
    machine, other = start(scheduling, one), start(scheduling, two)
    scheduling.add_node_collection(machine, ["f::1", "f::2", "f::3"])
    scheduling.add_node_collection(other, ["g::1"])
    scheduling.schedule()
    scheduling.mark_test_complete(machine, 0)
    assert scheduling.remove_node(machine) == "f::2"
    assert scheduling.rerun(one) and not scheduling.rerun(one)
    assert (one.left, two.left, other.sent) == (["f::3"], ["g::1"], [0])


def test_crash_on_a_kernel_that_is_given_up_is_reported_and_not_tried_again():
    shard = Shard("0", "a", ["f::1", "f::2"])
    scheduling = KernelScheduling([shard], {})
    assert not scheduling.rerun(shard, once=True)
    assert shard.left == ["f::2"]


def test_what_a_machine_cannot_collect_is_listed_as_not_run():
    shard = Shard("0", "a", ["f::1", "g::1"])
    scheduling = KernelScheduling([shard], {})
    machine = start(scheduling, shard)
    scheduling.add_node_collection(machine, ["other", "g::1"])
    scheduling.schedule()
    assert machine.sent == [1]
    scheduling.mark_test_complete(machine, 1)
    assert scheduling.unrun("a") == ["f::1"]
    assert scheduling.tests_finished


def test_kernel_that_is_given_up_starts_no_more_machines():
    scheduling = KernelScheduling([Shard("0", "a", ["f::1"]), Shard("1", "b", ["f::1"])], {})
    scheduling.give_up("a")
    assert scheduling.next([Place(HERE, 1, "ab")])[0].kernel == "b"
    assert (scheduling.unrun("a"), scheduling.unfinished) == (["f::1"], {"b"})


@pytest.fixture(scope="module")
def listed():
    with Cache(say=lambda line: None) as cache:
        return inventory(cache)


SELECTIONS = """
import json, sys
import pytest
from _pytest.mark import deselect_by_keyword

class Selections:
    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config, items):
        found = {}
        for config.option.keyword in sys.argv[1:]:
            left = list(items)
            deselect_by_keyword(left, config)
            found[config.option.keyword] = [item.nodeid for item in left]
        print("\\n" + json.dumps(found))

pytest.main(["-q", "-c", "pytest.ini", "--collect-only", "--tables=all", "--no-summary"], plugins=[Selections()])
"""


@pytest.fixture(scope="module")
def selected():
    """For each expression the tests that pytest's own -k selects from all files, which are collected once; for an empty one all tests."""
    done = subprocess.run([sys.executable, "-c", SELECTIONS, "", *EXPRESSIONS], cwd=PROJECT, capture_output=True, text=True)
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))


EXPRESSIONS = ["pmtu", "advmss and not ipv6", "keepalive or test_timer.py", "ipv4", "not ipv4", "virtual_clock", "leftovers", "TESTS",
               "no_such"]


def test_inventory_has_every_test(listed, selected):
    assert sum(map(len, listed.values())) == len(selected[""]) > 1000


def test_inventory_has_every_test_whatever_is_in_the_environment(listed, tmp_path, monkeypatch):
    """It stays in the cache for later sessions."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k advmss")
    with Cache(tmp_path, say=lambda line: None) as cache:
        assert inventory(cache) == listed


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_file_is_left_out_only_if_k_matches_nothing_in_it(listed, selected, expression):
    """Against pytest's own selection from all files."""
    needed = {test.partition("::")[0] for test in selected[expression]}
    assert Skim(PROJECT, expression, listed).useless == {PROJECT / file for file in listed if file not in needed}


def test_file_that_is_not_listed_is_collected(tmp_path):
    skim = Skim(PROJECT, "pmtu", {"tests/tcp/test_timer.py": [["test_timer.py"]]})
    assert skim.pytest_ignore_collect(PROJECT / "tests/tcp/test_timer.py")
    assert skim.pytest_ignore_collect(PROJECT / "tests/tcp/test_new.py") is None


@pytest.mark.parametrize("contents", ["", "{", "[]", '{"a": "b"}', '{"a": null}', "1"])
def test_durations_file_that_is_none_is_as_good_as_missing(tmp_path, monkeypatch, contents):
    monkeypatch.setenv("KDRIFT_CACHE", str(tmp_path))
    assert durations.read() == {}
    (tmp_path / durations.NAME).write_text(contents)
    assert durations.read() == {}


def test_durations_are_kept_by_test(tmp_path, monkeypatch):
    monkeypatch.setenv("KDRIFT_CACHE", str(tmp_path))
    durations.write({"a": 1.0, "b": 2.0})
    durations.write({"b": 3.0})
    assert durations.read() == json.loads((tmp_path / durations.NAME).read_text()) == {"a": 1.0, "b": 3.0}
