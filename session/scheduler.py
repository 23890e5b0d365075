"""Which machine runs which tests: each kernel's tests are cut into shards, and each shard runs in a machine of its own."""
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from xdist.workermanage import WorkerController

from session.places import Place

LEAST = 80                                  # tests: a machine takes as long to start as some twenty tests
PER_SLOT = 2                                # shards, so that all slots end at about the same time
UNKNOWN = 0.2                               # seconds that a test takes which has never run here


@dataclass(eq=False)
class Shard:
    """Some of a kernel's tests, by node id, in the order in which they run.  `left` are those that have not ended."""

    number: str                             # unique in the session
    kernel: str
    left: list[str]
    node: WorkerController | None = None    # the worker of its machine, from its start to its end
    place: Place | None = None              # where that machine runs
    again: set[str] = field(default_factory=set)        # tests that run once more, because a machine ended under them
    failed_starts: Counter[Place] = field(default_factory=Counter)      # machines that ended before one of its tests had run

    def files(self) -> list[str]:
        """The files with its tests, below the project's directory."""
        return list(dict.fromkeys(test.partition("::")[0] for test in self.left))


def cut(tests: Sequence[str], slots: int, last: Sequence[str] = ()) -> list[list[str]]:
    """Cut tests into shards of whole files, of about the same size; for one slot there is one shard.

    What a shard holds depends on the selected tests and the number of slots alone, so that a test meets the same tests before it in each
    run.  Those in `last` end each shard, as they are about the others; alone they are a shard.
    """
    count = 1 if slots == 1 else min(PER_SLOT * slots, -(-len(tests) // LEAST))
    shards: list[list[str]] = [[] for _ in range(count)]
    files: dict[str, list[str]] = {}
    for test in tests:
        files.setdefault(test.partition("::")[0], []).append(test)
    before = 0
    for file in files.values():
        shards[int((before + len(file) / 2) * count / len(tests))] += file
        before += len(file)
    return [[*shard, *last] for shard in shards if shard] or [list(last)] * bool(last)


def shuffle(tests: Sequence[str], last: Sequence[str], seed: int) -> list[list[str]]:
    """Shards of other sizes, with the tests in another order, for each seed: to find what depends on its neighbours."""
    chance = random.Random(seed)
    left, shards = list(tests), []
    chance.shuffle(left)
    while left:
        size = chance.randint(LEAST // 2, 2 * LEAST)
        shards.append([*left[:size], *last])
        del left[:size]
    return shards or cut([], 1, last)


class KernelScheduling:
    """pytest-xdist's scheduler protocol.  A shard is the `shard` attribute of a worker's gateway specification."""

    collection_is_completed = True          # a worker gets its tests once it has collected, whatever the others do

    def __init__(self, shards: Iterable[Shard], seconds: Mapping[str, float]):
        """`seconds` are how long tests took when they last ran."""
        self.shards = {shard.number: shard for shard in shards}
        self.seconds = seconds
        self.nodes: list[WorkerController] = []
        self.collections: dict[WorkerController, list[str]] = {}
        self.given_up: set[str] = set()     # kernels
        self.missing: dict[str, list[str]] = {}             # by kernel, tests that its machines cannot collect

    @property
    def unfinished(self) -> set[str]:
        """Kernels with tests to run."""
        return {shard.kernel for shard in self.shards.values() if shard.left} - self.given_up

    @property
    def tests_finished(self) -> bool:
        return not self.unfinished

    @property
    def has_pending(self) -> bool:
        return any(shard.left for shard in self.shards.values())

    def of(self, node: WorkerController) -> Shard:
        return self.shards[node.gateway.spec.shard]

    def next(self, places: Sequence[Place]) -> tuple[Shard, Place] | None:
        """The shard that should have the next free slot, and where; None if no place takes one.

        The kernel with the fewest machines comes first, and its longest shard.  It gets the place with the fewest machines per slot.
        """
        machines = Counter(shard.kernel for shard in self.shards.values() if shard.node)
        free = {kernel: [place for place in places if place.takes(kernel)] for kernel in self.unfinished}
        waiting = [shard for shard in self.shards.values() if shard.left and not shard.node and free.get(shard.kernel)]
        if not waiting:
            return None
        shard = min(waiting, key=lambda shard: (machines[shard.kernel], -self.cost(shard)))
        return shard, min(free[shard.kernel], key=Place.load)

    def cost(self, shard: Shard) -> float:
        """Seconds that its tests will take."""
        return sum(self.seconds.get(test, UNKNOWN) for test in shard.left)

    def add_node(self, node: WorkerController) -> None:
        self.nodes.append(node)
        shard = self.of(node)
        assert shard.place
        shard.place.proven.add(shard.kernel)

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        self.collections[node] = list(collection)

    def schedule(self) -> None:
        for node in list(self.collections):
            if node.shutting_down:
                continue
            ids = self.collections[node]
            shard = self.of(node)
            self.missing.setdefault(shard.kernel, []).extend(test for test in shard.left if test not in ids)
            shard.left = [test for test in shard.left if test in ids]
            try:
                node.send_runtest_some([ids.index(test) for test in shard.left])
            except OSError:
                continue                    # its machine has just ended; the session will be told
            node.shutdown()

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        test, left = self.collections[node][item_index], self.of(node).left
        if test in left:                    # called twice: for the last report, and by the worker
            left.remove(test)

    def mark_test_pending(self, item: str) -> None:
        raise NotImplementedError("a failed test is never run again")

    def remove_pending_tests_from_node(self, node: WorkerController, indices: Sequence[int]) -> None:
        raise NotImplementedError("tests are not moved between machines")

    def remove_node(self, node: WorkerController) -> str | None:
        """Forget a machine.  Returns the test that it was running, if any."""
        self.nodes.remove(node)
        ran = self.collections.pop(node, None)
        left = self.of(node).left
        return left[0] if left and ran is not None else None

    def rerun(self, shard: Shard, once: bool = False) -> bool:
        """Decide whether the test during which the machine ended runs again: the first time it does (True), unless `once`."""
        first = shard.left[0]
        if once or first in shard.again:
            shard.left.pop(0)
            return False
        shard.again.add(first)
        return True

    def give_up(self, kernel: str) -> None:
        """Run nothing more on a kernel."""
        self.given_up.add(kernel)

    def unrun(self, kernel: str) -> list[str]:
        """Chosen tests that did not run."""
        left = [test for shard in self.shards.values() if shard.kernel == kernel for test in shard.left]
        return list(dict.fromkeys([*self.missing.get(kernel, []), *left]))
