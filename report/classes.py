"""In which class of the verdict a test is, by what it did on the old kernel and on the new one."""
from report.results import TestResult

SAME, CHANGED, DRIFT, REGRESSION, GONE = "same", "changed", "drift", "regression", "gone"
FIXED, NEW, KNOWN, UNJUDGED = "fixed", "new", "known", "not judged"
# In the order in which they are counted and shown, with their plurals.
CLASSES = {SAME: SAME, REGRESSION: "regressions", GONE: GONE, DRIFT: "drifted", CHANGED: CHANGED, FIXED: FIXED, NEW: NEW, KNOWN: KNOWN,
           UNJUDGED: UNJUDGED}
# A test that was skipped because the kernel lacks a feature, one that was skipped for another reason, and one that did not run.
LACKS, SKIPPED, ABSENT = "lacks", "skipped", "absent"
# The words of the table: = the same outcome on both (what the test measured, sent or lacks decides), R regression, G gone, F fixed, N new, K known, - not judged.
_WORDS = {"=": SAME, "R": REGRESSION, "G": GONE, "F": FIXED, "N": NEW, "K": KNOWN, "-": UNJUDGED}
# What failed on both is not judged, save that a kernel that now crashes does worse than one that failed, and that a failure which is listed
# for the old kernel alone is another one on the new. What was lost, skipped for a reason of the host, or not run says nothing of its kernel.
# What the old kernel lacks is new where the new one has it and keeps the promise; what both lack is the same if it is the same feature.
_TABLE = """
old      new: passed fixed known failed crashed lost lacks skipped absent
passed          =      =     R      R      R     -     G      -      -
fixed           =      =     R      R      R     -     G      -      -
known           F      F     K      R      R     -     -      -      -
failed          F      F     -      -      R     -     -      -      -
crashed         F      F     -      -      -     -     -      -      -
lost            -      -     -      -      -     -     -      -      -
lacks           N      N     -      -      -     -     =      -      -
skipped         -      -     -      -      -     -     -      -      -
absent          -      -     -      -      -     -     -      -      -
"""


def _matrix() -> dict[tuple[str, str], str]:
    head, *rows = _TABLE.strip().splitlines()
    columns = head.split()[2:]
    cells = (row.split() for row in rows)
    return {(old, new): _WORDS[word] for old, *words in cells for new, word in zip(columns, words, strict=True)}


MATRIX = _matrix()
OUTCOMES = tuple(dict.fromkeys(old for old, _new in MATRIX))


def outcome(test: TestResult | None) -> str:
    """A row or column of the table."""
    if test is None:
        return ABSENT
    if test.outcome == "skipped":
        return LACKS if test.skip == "kernel" else SKIPPED
    return test.outcome


def words(test: TestResult) -> str:
    """An outcome as it is said."""
    return "skipped, the kernel lacks it" if outcome(test) == LACKS else test.outcome


def plural(count: int, kind: str) -> str:
    """`2 regressions`."""
    return f"{count} {kind if count == 1 and kind == REGRESSION else CLASSES[kind]}"
