"""What a guest writes to its gateway, checked before execnet reads it: a guest is not trusted.

execnet would allocate whatever length a message or a list claims to have, and obey messages that no worker sends.
"""
import struct

from vm.inlet import FRAME
from vm.qemu import VMError

LONGEST = 64 << 20                          # bytes of a message; a test's report with its captures has some hundred kB
KINDS = (4, 5, 6, 7)                        # of messages that a worker sends: data, close, close with an error, last message (execnet)
WITH_VALUE = (4, 6)                         # the first and the third have a value
# Opcodes of its values (execnet.gateway_base.opcode): alone, with so many bytes, with a length and so many bytes.
ALONE = frozenset(b"CJLPQR")
FIXED = {**dict.fromkeys(b"@EFGO", 4), ord("D"): 8, ord("T"): 16}
MEASURED = frozenset(b"AHIMNS")
LIST = ord("K")                             # with its number of items, for which there is room at once


class Misbehaved(VMError):
    """The guest broke a rule that no kernel breaks by a mistake of its own; the message says which."""


class Outgoing:
    """Cuts what a guest writes into execnet's messages."""

    def __init__(self) -> None:
        self.rest = bytearray()

    def cut(self, data: bytes) -> bytes:
        """The messages that are whole by now, in a row. Raises Misbehaved."""
        self.rest += data
        end = 0
        while len(self.rest) - end >= FRAME:
            kind, _channel, size = struct.unpack_from("!bii", self.rest, end)
            if kind not in KINDS or not 0 <= size <= LONGEST:
                raise Misbehaved(f"the guest sent a message of kind {kind} with {size} bytes, which no worker sends")
            if len(self.rest) - end < FRAME + size:
                break
            if kind in WITH_VALUE:
                check_lists(bytes(self.rest[end + FRAME:end + FRAME + size]))
            end += FRAME + size
        whole = bytes(self.rest[:end])
        del self.rest[:end]
        return whole


def check_lists(data: bytes) -> None:
    """Raises Misbehaved for a value whose lists claim more items than it has bytes, or that has an opcode which no worker uses."""
    at = items = 0
    while at < len(data):
        code, at = data[at], at + 1
        if code in ALONE:
            continue
        if code in FIXED:
            at += FIXED[code]
            continue
        length = int.from_bytes(data[at:at + 4], "big", signed=True)
        at += 4
        if code == LIST:
            items += length
        elif code in MEASURED:
            at += length
        if code not in MEASURED and code != LIST or not 0 <= length or items > len(data):
            raise Misbehaved("the guest sent a value that no worker sends: a list without its items, or of no type")
