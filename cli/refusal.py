"""How a command says that it cannot do what it was asked."""
import sys

from common.status import Exit


def refuse(why: object, status: Exit = Exit.USAGE) -> Exit:
    """Print the reason on standard error; returns the exit status."""
    print(f"kdrift: {why}", file=sys.stderr)
    return status
