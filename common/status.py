"""Exit statuses of ./kdrift, the same for all its commands; the README has the table."""
from enum import IntEnum


class Exit(IntEnum):
    """5 and below are also pytest's, which have another meaning: report.status.of_pytest() translates those."""

    OK = 0
    REGRESSION = 1                          # what --fail-on names was found; without a comparison: a test failed
    USAGE = 2
    LOST = 3                                # a machine, or the harness itself; tests that did not run
    NOTHING_JUDGED = 6                      # no test said anything of the kernel
    NOT_BOOTED = 125                        # a kernel could not be had or booted
    BISECT_USAGE = 129                      # USAGE with --bisect; git's own status for usage
    INTERRUPTED = 130


class Bisect(IntEnum):
    """What git bisect run makes of a status.  Source: git-bisect(1); above 127 it stops."""

    GOOD = 0
    BAD = 1
    SKIP = 125
