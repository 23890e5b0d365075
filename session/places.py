"""Where a session's machines run: on this machine, on builders, on hosts (hosts.session)."""
from collections.abc import Collection
from dataclasses import dataclass, field

HERE = "here"


@dataclass(eq=False)
class Place:
    """A machine with slots for some of the session's kernels, which are given by number."""

    name: str
    slots: int
    kernels: Collection[str] = ()           # those that may run there
    lost: str = ""                          # why nothing more starts there
    unfit: dict[str, str] = field(default_factory=dict)             # kernels that do not start there, and why
    proven: set[str] = field(default_factory=set)                   # kernels of which a machine has run there
    shards: dict[str, str] = field(default_factory=dict)            # those that have a machine there, and their kernels; by number

    def load(self) -> float:
        """Machines per slot."""
        return len(self.shards) / self.slots

    def trouble(self, kernel: str) -> str:
        """Why a kernel's machines cannot run there; "" if they can."""
        return self.lost or self.unfit.get(kernel, "")

    def takes(self, kernel: str) -> bool:
        """Whether another machine of a kernel may start there now.

        The first one may have to make the saved state, so others wait for it.
        """
        return (kernel in self.kernels and not self.trouble(kernel) and len(self.shards) < self.slots
                and (kernel in self.proven or kernel not in self.shards.values()))
