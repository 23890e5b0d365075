"""Exit statuses of ./kdrift, the same for all subcommands; the README has the table."""
from enum import IntEnum


class Exit(IntEnum):
    """Up to 5 pytest has the same numbers with other meanings: report.status.of_pytest() translates them."""

    OK = 0
    REGRESSION = 1                          # --fail-on matched; a test failed; known --check, export --all: there is something wrong
    USAGE = 2
    LOST = 3                                # a machine or the harness failed, or tests did not run
    NOTHING_JUDGED = 6                      # no test judged the kernel
    NOT_BOOTED = 125                        # a kernel could not be fetched or booted
    BISECT_USAGE = 129                      # USAGE with --bisect; git's own status for usage
    INTERRUPTED = 130


class Bisect(IntEnum):
    """How git bisect run reads a status: git-bisect(1); above 127 it stops."""

    GOOD = 0
    BAD = 1
    SKIP = 125
