"""What makes the virtual clock exact, to the instruction.

QEMU's clock is the number of instructions, two nanoseconds each (-icount shift=1), and an offset.  When the guest is idle QEMU's main loop
adds to the offset what is left until the next timer.  It may take a processor for idle that has just halted and whose last instructions are
not counted yet; then it adds too much, some microseconds, once in 100000 times on a busy host (QEMU 7.2, icount_start_warp_timer()).
A QEMU that records for a replay has its main loop wait until they are counted.  So guests are recorded, to nowhere.
"""
import struct
from pathlib import Path

RECORDED = ["-icount", "rr=record,rrfile=/dev/null"]        # besides what else -icount is told
SECTION = b"\x0ctimer/icount" + struct.pack(">I", 1)        # in a saved state: length and name, version; offset and number follow
SHIFT = 1


def count_from_zero(devices: Path) -> None:
    """Make all instructions of a saved state part of the offset.

    The record begins at 0, and 2^31 instructions at once are too many for it (QEMU 7.2, replay_advance_current_icount()).
    Raises ValueError if this is no saved state with a virtual clock.
    """
    with open(devices, "r+b") as file:
        before, found, after = file.read().partition(SECTION)
        if not found or SECTION in after:
            raise ValueError("the saved state does not have one virtual clock")
        offset, instructions = struct.unpack_from(">qq", after)
        file.seek(len(before) + len(found))
        file.write(struct.pack(">qq", offset + (instructions << SHIFT), 0))
