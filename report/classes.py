"""The class of a test in the verdict, from its outcomes on the old and the new kernel."""
from report.results import TestResult

SAME, CHANGED, DRIFT, REGRESSION, GONE = "same", "changed", "drift", "regression", "gone"
FIXED, NEW, KNOWN, UNJUDGED = "fixed", "new", "known", "not judged"
# In the order of counting and display, with their plurals.
CLASSES = {SAME: SAME, REGRESSION: "regressions", GONE: GONE, DRIFT: "drifted", CHANGED: CHANGED, FIXED: FIXED, NEW: NEW, KNOWN: KNOWN,
           UNJUDGED: UNJUDGED}
# A test skipped because the kernel lacks a feature, one skipped for another reason, and one that did not run.
LACKS, SKIPPED, ABSENT = "lacks", "skipped", "absent"
# Signs of the table: = the same outcome on both (measurements, traffic or the missing feature decide), R regression, G gone, F fixed,
# N new, K known, - not judged.
_WORDS = {"=": SAME, "R": REGRESSION, "G": GONE, "F": FIXED, "N": NEW, "K": KNOWN, "-": UNJUDGED}
# A test that failed on both is not judged, with two exceptions: a kernel that now crashes does worse than one that failed, and a failure
# listed for the old kernel alone is another one on the new. A test that was lost, skipped because of the host, or not run says nothing.
# A feature that the old kernel lacks is new if the new one keeps the promise. If both lack one, they are the same if it is the same one.
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
    """The test's row or column in the table."""
    if test is None:
        return ABSENT
    if test.outcome == "skipped":
        return LACKS if test.skip == "kernel" else SKIPPED
    return test.outcome


def words(test: TestResult) -> str:
    """An outcome in words."""
    return "skipped, the kernel lacks it" if outcome(test) == LACKS else test.outcome


def plural(count: int, kind: str) -> str:
    """`2 regressions`."""
    return f"{count} {kind if count == 1 and kind == REGRESSION else CLASSES[kind]}"
