"""Which machine runs which tests: every kernel runs all, and starts as soon as its own machine is ready.

pytest-xdist's EachScheduling waits until every worker has collected; with more kernels than slots that never happens.
"""
from collections.abc import Sequence

from xdist.workermanage import WorkerController


class KernelScheduling:
    """pytest-xdist's scheduler protocol.  A kernel is the `kernel` attribute of a worker's gateway specification."""

    collection_is_completed = True          # a worker gets its tests once it has collected, whatever the others do

    def __init__(self, kernels: Sequence[str]):
        self.unfinished = set(kernels)
        self.collections: dict[str, list[str]] = {}
        self.left: dict[str, list[int]] = {}
        self.again: dict[str, set[int]] = {kernel: set() for kernel in kernels}
        self.ready: list[WorkerController] = []
        self.nodes: list[WorkerController] = []
        self.given_up: dict[str, list[int]] = {}

    @property
    def tests_finished(self) -> bool:
        return not self.unfinished

    @property
    def has_pending(self) -> bool:
        return any(self.left.values())

    def add_node(self, node: WorkerController) -> None:
        self.nodes.append(node)

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        kernel = node.gateway.spec.kernel
        if kernel not in self.collections:
            self.collections[kernel] = list(collection)
            self.left[kernel] = list(range(len(collection)))
        assert list(collection) == self.collections[kernel], "a restored machine collected different tests than the first"
        self.ready.append(node)

    def schedule(self) -> None:
        for node in list(self.ready):
            kernel = node.gateway.spec.kernel
            try:
                node.send_runtest_some(self.left[kernel])
            except OSError:
                continue                    # its machine has just ended; the session will be told
            node.shutdown()
            self.ready.remove(node)
            self._finish_if_empty(kernel)

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        kernel = node.gateway.spec.kernel
        if item_index in self.left.get(kernel, ()):         # called twice: for the last report, and by the worker
            self.left[kernel].remove(item_index)
            self._finish_if_empty(kernel)

    def mark_test_pending(self, item: str) -> None:
        raise NotImplementedError("a failed test is never run again")

    def remove_pending_tests_from_node(self, node: WorkerController, indices: Sequence[int]) -> None:
        raise NotImplementedError("tests are not moved between machines")

    def remove_node(self, node: WorkerController) -> str | None:
        """Forget a machine.  Returns the test that it was running, if any."""
        self.nodes.remove(node)
        kernel = node.gateway.spec.kernel
        left = self.left.get(kernel)
        return self.collections[kernel][left[0]] if left and node not in self.ready else None

    def rerun(self, kernel: str) -> bool:
        """Decide whether the test during which the machine ended runs again: the first time it does (True)."""
        first = self.left[kernel][0]
        if first in self.again[kernel]:
            self.left[kernel].pop(0)
            self._finish_if_empty(kernel)
            return False
        self.again[kernel].add(first)
        return True

    def give_up(self, kernel: str) -> None:
        """Run nothing more on a kernel."""
        self.unfinished.discard(kernel)
        self.given_up[kernel] = self.left.pop(kernel, [])

    def unrun(self, kernel: str) -> list[str]:
        """Chosen tests that did not run; empty if the kernel's machine never ran, since it has collected none."""
        return [self.collections[kernel][index] for index in self.given_up.get(kernel, self.left.get(kernel, []))]

    def _finish_if_empty(self, kernel: str) -> None:
        if not self.left[kernel]:
            self.unfinished.discard(kernel)
