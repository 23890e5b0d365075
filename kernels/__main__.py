"""`python -m kernels`: the command `./kdrift kernels`."""

import sys

from kernels.listing import main

sys.exit(main())
