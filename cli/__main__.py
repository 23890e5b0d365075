"""`./kdrift COMMAND ...`, where everything is installed."""
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from cli.commandline import parse
from common.status import Exit


def main(arguments: Sequence[str]) -> int:
    """Run a command; returns its exit status."""
    options = parse(arguments)
    try:
        status: int = import_module(options.module).run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:                 # of `./kdrift known | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)       # CI systems cancel a job with it: it is Ctrl-C
    sys.exit(main(sys.argv[1:]))
