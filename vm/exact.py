"""Makes the virtual clock exact to the instruction.

QEMU's clock is an offset plus two nanoseconds per instruction (-icount shift=1), or one in a fast machine (shift=0).  When the guest
is idle, QEMU's main loop adds the time until the next timer to the offset.  It may take a processor for idle that has just halted,
before its last instructions are counted; then it adds some microseconds too much, once in 100000 times on a busy host (QEMU 7.2,
icount_start_warp_timer()).  When QEMU records for a replay, its main loop waits until they are counted.  So guests are recorded, to
/dev/null.
"""
import struct
from pathlib import Path

RECORDED = ["-icount", "rr=record,rrfile=/dev/null"]        # in addition to the other -icount options
SECTION = b"\x0ctimer/icount" + struct.pack(">I", 1)        # in a saved state: length and name, version; offset and count follow
SHIFT, FAST = 1, 0                          # an instruction takes 2**shift nanoseconds of the guest's time; QEMU knows none below 0


def count_from_zero(devices: Path, shift: int = SHIFT) -> None:
    """Move the instruction count of a saved state into the offset.

    The recording begins at 0, and cannot advance by 2^31 instructions at once (QEMU 7.2, replay_advance_current_icount()).
    Raises ValueError if this is no saved state with a virtual clock.
    """
    with open(devices, "r+b") as file:
        before, found, after = file.read().partition(SECTION)
        if not found or SECTION in after:
            raise ValueError("expected exactly one virtual clock in the saved state")
        offset, instructions = struct.unpack_from(">qq", after)
        file.seek(len(before) + len(found))
        file.write(struct.pack(">qq", offset + (instructions << shift), 0))
