"""Runs the case in this file:  sudo python3 repro.pyz

Ends with REPRODUCED (status 1), NOT REPRODUCED (status 0) or CANNOT RUN and why (status 2).
"""
import sys

if sys.version_info < (3, 8):
    sys.stdout.write("CANNOT RUN: needs Python 3.8 or newer; this is %s\n" % sys.version.split()[0])
    sys.exit(2)

try:
    from repro import compat
    compat.install()
    from repro.command import main
    status = main()
except Exception as error:                  # an unexpected error is no reproduction
    import traceback
    traceback.print_exc(file=sys.stdout)
    sys.stdout.write("\nCANNOT RUN: %s: %s\n" % (type(error).__name__, error))
    status = 2
sys.stdout.flush()
sys.exit(status)
