"""How a command says that it cannot do what it was asked."""
import sys

from common.errors import CacheError, FetchError, SpecError, UnwritableError, is_full, trouble_of
from common.status import Exit
from vm.image import ImageError


def refuse(why: object, status: Exit = Exit.USAGE) -> Exit:
    """Print the reason on standard error; returns the exit status."""
    print(f"kdrift: {why}", file=sys.stderr)
    return status


def refuse_error(error: Exception, where: object = "") -> Exit:
    """Likewise for an error of fetching, of machines or of files; `where` is said of one that names no file."""
    return refuse(trouble_of(error, where), status_of(error))


def status_of(error: Exception) -> Exit:
    """The exit status for such an error, the same in all commands."""
    if is_full(error):
        return Exit.LOST
    if isinstance(error, SpecError | UnwritableError):
        return Exit.USAGE
    if isinstance(error, FetchError | ImageError) and not isinstance(error, CacheError):
        return Exit.NOT_BOOTED
    return Exit.LOST
