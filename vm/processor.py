"""Executes instructions one by one: does an emulator leave the same registers and flags as a processor?

`probe()` is for a booting guest: it checks what the kernel's fast paths use against known values.  `survey()` executes every form
with many values; two processors agree where its numbers do.  The same file runs on the host, as a module of the guest's process 1
and through execnet.  It needs x86-64 and only Python's library.

Flags that Intel's manual calls undefined are ignored (Software Developer's Manual, volume 1, appendix A).
"""
import ctypes
import mmap
import random
import struct
import zlib

CF, PF, AF, ZF, SF, DF, OF = 1, 4, 16, 64, 128, 0x400, 0x800
ARITHMETIC = CF | PF | AF | ZF | SF | OF
ALWAYS = 2                                  # bit 1 of EFLAGS
# The layout of a case: rax rbx rcx rdx rsi rdi flags r8 r9, and 128 bytes of memory.
STATE = struct.Struct("<9Q56x128s")
EDGES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
         1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
SEED, RANDOM = 1, 900                       # random cases, in addition to the edges
# How the flags before an instruction were set: an emulator computes them lazily.
BEFORE = {"popf": b"", "cmp": b"\x4d\x39\xc8", "inc": b"\x49\xff\xc0"}      # cmp %r9, %r8; inc %r8
PROBE = STATE.pack(0x1DBE9340, 3, 5, 7, 11, 13, ALWAYS, 0xFFFF88801DBE9340, 0xFFFF88801DBE9342, bytes(range(128)))
# EFLAGS that a processor leaves after the instructions of fast paths: locks, counters, bitmaps, SLUB and copies.
FAST = {
    "cmpxchg16b": 0x293, "cmpxchg16b equal": 0x2D3, "lock cmpxchg16b": 0x293, "lock cmpxchg16b equal": 0x2D3,
    "cmpxchg mem64": 0x283, "lock cmpxchg mem64": 0x283, "lock cmpxchg mem32": 0x202, "xchg mem64": 0x293,
    "xadd mem32": 0x206, "lock xadd mem32": 0x206, "lock xadd mem64": 0x206, "lock add mem32": 0x206, "lock sub mem32": 0x212,
    "lock inc mem32": 0x203, "lock dec mem32": 0x217, "lock or mem64": 0x206, "lock and mem64": 0x246,
    "bt mem64": 0x202, "lock bts mem64": 0x202, "lock btr mem64": 0x202, "lock btc mem64": 0x202, "bsf reg64": 0x202, "bsr reg64": 0x202,
    "tzcnt reg64": 0x242, "popcnt reg64": 0x202, "adc reg64": 0x206, "sbb reg64": 0x216, "rcl 1, reg64": 0x292, "rcr 1, reg64": 0xA92,
    "shld cl, reg64": 0x206, "shrd cl, reg64": 0x206, "mul reg64": 0x202, "imul reg64": 0x202, "div reg64": 0x202,
    "rep movs8": 0x293, "rep movs64": 0x293, "rep stos8": 0x293, "rep stos64": 0x293, "rep cmps8": 0x283, "repne scas8": 0x246,
}

SAVE = bytes.fromhex("53 55 41 54 41 55 41 56  49 89 fc  49 89 f6")        # push %rbx %rbp %r12 %r13 %r14; mov %rdi, %r12; mov %rsi, %r14
LOAD = bytes.fromhex("4d 8d ac 24 80 00 00 00  49 8b 04 24  49 8b 5c 24 08  49 8b 4c 24 10  49 8b 54 24 18"    # lea 128(%r12), %r13
                     "49 8b 74 24 20  49 8b 7c 24 28  4d 8b 44 24 38  4d 8b 4c 24 40")                          # mov ..., rax to r9
FLAGS_IN = bytes.fromhex("41 ff 74 24 30  9d")                              # push 48(%r12); popf
FLAGS_OUT = bytes.fromhex("9c  41 8f 44 24 30")                             # pushf; pop 48(%r12)
STORE = bytes.fromhex("49 89 04 24  49 89 5c 24 08  49 89 4c 24 10  49 89 54 24 18  49 89 74 24 20  49 89 7c 24 28")
MASK = bytes.fromhex("49 81 64 24 30")                                      # andq $imm32, 48(%r12)
NEXT = bytes.fromhex("49 81 c4 00 01 00 00  49 ff ce  0f 85")               # add $256, %r12; dec %r14; jnz
REST = bytes.fromhex("fc  41 5e 41 5d 41 5c 5d 5b  c3")                     # cld; pop ...; ret


class Form:
    """One instruction with its operands. `undefined` flags are ignored; `before` and `after` are machine code around it that keeps
    its operands in bounds; it needs `feature` (a name in /proc/cpuinfo)."""

    def __init__(self, name: str, code: bytes, undefined: int = 0, before: bytes = b"", after: bytes = b"",
                 feature: "str | None" = None) -> None:
        self.name, self.code, self.undefined, self.before, self.after, self.feature = name, code, undefined, before, after, feature

    def program(self, how: str) -> bytes:
        """The loop over a table of cases, as a C function that takes its address and length."""
        mask = struct.pack("<i", ~self.undefined)
        body = LOAD + self.before + FLAGS_IN + BEFORE[how] + self.code + FLAGS_OUT + self.after + STORE + MASK + mask + NEXT
        return SAVE + body + struct.pack("<i", -len(body) - 4) + REST


class Runner:
    """Executes a form on a table of cases."""

    def __init__(self, cases: bytes) -> None:
        self.cases = cases
        self.code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self.data = mmap.mmap(-1, len(cases))
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.data))
        self.call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)(ctypes.addressof(ctypes.c_char.from_buffer(self.code)))

    def run(self, form: Form, how: str) -> bytes:
        """The cases afterwards, as a table of the same layout."""
        program = form.program(how)
        self.code[:len(program)] = program
        self.data[:] = self.cases
        self.call(self.address, len(self.cases) // STATE.size)
        return self.data[:]


def encode(size: int, opcode: bytes, register: int, operand: "int | str", prefix: bytes = b"", own: bool = False) -> bytes:
    """An instruction with a ModRM byte: `register` is a number or an opcode extension, `operand` a number or "mem" for (%r13).
    The opcode's lowest bit selects 8 bits or more, unless it is its `own`."""
    memory = isinstance(operand, str)
    rex = 0x40 | (size == 64) << 3 | memory
    modrm = bytes([0x45 | register << 3, 0] if isinstance(operand, str) else [0xC0 | register << 3 | operand])
    return prefix + (b"\x66" if size == 16 else b"") + bytes([rex]) + opcode[:-1] + bytes([opcode[-1] | (size > 8 and not own)]) + modrm


RAX, RBX, LOCK = 0, 3, b"\xf0"
AND_EBX_127, AND_ECX_7 = b"\x83\xe3\x7f", b"\x83\xe1\x07"
LEA_RSI_RDI = bytes.fromhex("49 8d 75 38  49 8d 7d 40")                     # lea 56(%r13), %rsi; lea 64(%r13), %rdi
OFFSETS = bytes.fromhex("4c 29 ee  4c 29 ef")                               # sub %r13, %rsi; sub %r13, %rdi
WHERE = {RAX: "reg", RBX: "reg", "mem": "mem"}


def forms() -> "list[Form]":
    """All forms that survey() executes."""
    found = []
    logic, rotates = ("or", "and", "xor", "test"), ("rol", "ror", "rcl", "rcr")

    def both(name: str, opcode: bytes, register: int, undefined: int = 0, sizes: "tuple[int, ...]" = (8, 16, 32, 64), lock: bool = True,
             places: "tuple[int | str, ...]" = (RAX, "mem"), before: bytes = b"") -> None:
        for size in sizes:
            for place in places:
                found.append(Form(f"{name} {WHERE[place]}{size}", encode(size, opcode, register, place), undefined, before))
            if lock and "mem" in places:
                found.append(Form(f"lock {name} mem{size}", encode(size, opcode, register, "mem", LOCK), undefined, before))

    for number, name in enumerate(("add", "or", "adc", "sbb", "and", "sub", "xor", "cmp")):
        both(name, bytes([8 * number]), RBX, AF if name in logic else 0, lock=name != "cmp")
    both("test", b"\x84", RBX, AF, lock=False)
    both("xchg", b"\x86", RBX)
    both("xadd", b"\x0f\xc0", RBX)
    both("cmpxchg", b"\x0f\xb0", RBX)
    for number, name in enumerate(("inc", "dec")):
        both(name, b"\xfe", number)
    for number, name in ((2, "not"), (3, "neg")):
        both(name, b"\xf6", number)
    for number, name in ((4, "mul"), (5, "imul")):
        both(name, b"\xf6", number, SF | ZF | AF | PF, lock=False, places=(RBX, "mem"))
    both("imul two", b"\x0f\xaf", RAX, SF | ZF | AF | PF, sizes=(16, 32, 64), lock=False, places=(RBX,))
    # btr $63, %rdx; bts $63, %rbx: the quotient fits.   mov %rax, %rdx; sar $63, %rdx; btr $63, %rbx; or $1, %rbx: likewise
    both("div", b"\xf6", 6, ARITHMETIC, (64,), False, (RBX,), before=bytes.fromhex("48 0f ba f2 3f  48 0f ba eb 3f"))
    both("idiv", b"\xf6", 7, ARITHMETIC, (64,), False, (RBX,), before=bytes.fromhex("48 89 c2  48 c1 fa 3f  48 0f ba f3 3f  48 83 cb 01"))
    both("div", b"\xf6", 6, ARITHMETIC, (32,), False, (RBX,), before=bytes.fromhex("0f ba f2 1f  0f ba eb 1f"))
    for number, name in ((0xA3, "bt"), (0xAB, "bts"), (0xB3, "btr"), (0xBB, "btc")):
        both(name, bytes([0x0F, number]), RBX, OF | SF | AF | PF, (16, 32, 64), name != "bt", before=AND_EBX_127)
    for number, name in ((0, "rol"), (1, "ror"), (2, "rcl"), (3, "rcr"), (4, "shl"), (5, "shr"), (7, "sar")):
        kept = 0 if name in rotates else AF
        both(f"{name} 1,", b"\xd0", number, kept, lock=False)
        both(f"{name} cl,", b"\xd2", number, kept | OF, (32, 64), False)
        both(f"{name} cl=0,", b"\xd2", number, 0, lock=False, before=b"\x31\xc9")           # xor %ecx, %ecx
    for number, name in ((0xA5, "shld"), (0xAD, "shrd")):
        both(f"{name} cl,", bytes([0x0F, number]), RBX, AF | OF, (32, 64), False)
    for number, name in ((0xBC, "bsf"), (0xBD, "bsr")):
        for size in (16, 32, 64):
            code, undefined = encode(size, bytes([0x0F, number]), RAX, RBX, own=True), ARITHMETIC & ~ZF
            found.append(Form(f"{name} reg{size}", code, undefined, before=b"\x0f\xba\xeb\x0f"))                # bts $15, %ebx
            # The result for 0 is undefined: xor %ebx, %ebx before, xor %eax, %eax after.
            found.append(Form(f"{name} 0, reg{size}", code, undefined, before=b"\x31\xdb", after=b"\x31\xc0"))
    counts = OF | SF | PF | AF
    for number, name, undefined, feature in ((0xBC, "tzcnt", counts, "bmi1"), (0xBD, "lzcnt", counts, "abm"),
                                             (0xB8, "popcnt", 0, "popcnt")):
        for size in (16, 32, 64):
            code = encode(size, bytes([0x0F, number]), RAX, RBX, b"\xf3", own=True)
            found.append(Form(f"{name} reg{size}", code, undefined, feature=feature))
    for number, name in ((0xF0, "movbe load"), (0xF1, "movbe store")):
        for size in (16, 32, 64):
            found.append(Form(f"{name} mem{size}", encode(size, bytes([0x0F, 0x38, number]), RAX, "mem", own=True), feature="movbe"))
    for number, name, sizes in ((0xA4, "movs", (8, 16, 32, 64)), (0xAA, "stos", (8, 16, 32, 64)), (0xAC, "lods", (8, 16, 32, 64)),
                                (0xA6, "cmps", (8, 16, 32, 64)), (0xAE, "scas", (8, 16, 32, 64))):
        for size in sizes:
            for prefix, word in ((b"", ""), (b"\xf3", "rep "), (b"\xf2", "repne ")):
                if word == "repne " and name not in ("cmps", "scas"):
                    continue
                code = prefix + (b"\x66" if size == 16 else b"") + bytes([0x40 | (size == 64) << 3, number | (size > 8)])
                found.append(Form(f"{word}{name}{size}", code, before=AND_ECX_7 + LEA_RSI_RDI, after=OFFSETS))
    found += [Form("bswap reg32", b"\x0f\xc8"), Form("bswap reg64", b"\x48\x0f\xc8"), Form("sahf", b"\x9e", feature="lahf_lm"),
              Form("lahf", b"\x9f", feature="lahf_lm"), Form("cmc", b"\xf5"), Form("stc", b"\xf9"), Form("clc", b"\xf8"),
              Form("crc32 reg64", b"\xf2\x48\x0f\x38\xf1\xc3", feature="sse4_2")]
    found += [Form(f"cmov{condition:x} reg64", bytes([0x48, 0x0F, 0x40 | condition, 0xC3])) for condition in range(16)]
    found += [Form(f"set{condition:x} reg8", bytes([0x0F, 0x90 | condition, 0xC0])) for condition in range(16)]
    return found + double_compares()


def double_compares() -> "list[Form]":
    """cmpxchg8b and cmpxchg16b, on memory that matches and memory that does not. The only flag that they change is ZF."""
    found = []
    for code, name, feature in ((b"\x41\x0f\xc7\x4d\x00", "cmpxchg8b", "cx8"), (b"\x49\x0f\xc7\x4d\x00", "cmpxchg16b", "cx16")):
        for prefix, word in ((b"", ""), (LOCK, "lock ")):
            # mov %eax, (%r13); mov %edx, 4(%r13), or mov %rax, (%r13); mov %rdx, 8(%r13)
            equal = bytes.fromhex("41 89 45 00  41 89 55 04" if name == "cmpxchg8b" else "49 89 45 00  49 89 55 08")
            found += [Form(f"{word}{name}", prefix + code, feature=feature),
                      Form(f"{word}{name} equal", prefix + code, before=equal, feature=feature)]
    return found


def features() -> "set[str]":
    """The processor features that the kernel reports (proc_cpuinfo(5))."""
    with open("/proc/cpuinfo") as file:
        return set(next((line for line in file if line.startswith("flags")), ":").partition(":")[2].split())


def probe() -> "tuple[str, int, int] | None":
    """Check the instructions of the kernel's fast paths: (name, EFLAGS found, EFLAGS expected) of the first wrong one, or None."""
    runner, has = Runner(PROBE), features()
    for form in forms():
        if form.name in FAST and (form.feature is None or form.feature in has):
            flags = STATE.unpack(runner.run(form, "cmp"))[6]
            if flags != FAST[form.name]:
                return form.name, flags, FAST[form.name]
    return None


def cases(count: int = RANDOM) -> bytes:
    """A table of cases for a Runner: pairs of edges, and `count` random ones, the same each time."""
    chance = random.Random(SEED)
    table = []
    for first in EDGES:
        for second in EDGES:
            flags = chance.getrandbits(12) & (ARITHMETIC | DF) | ALWAYS
            memory = struct.pack("<2Q", first, second) * 8
            table.append(STATE.pack(first, second, second, first, first, second, flags, first, second, memory))
    for _ in range(count):
        words = [chance.getrandbits(chance.choice((8, 16, 32, 64, 64))) for _ in range(8)]
        flags = chance.getrandbits(12) & (ARITHMETIC | DF) | ALWAYS
        # Comparisons should match half the time.
        memory = b"".join(struct.pack("<Q", chance.choice((words[0], chance.getrandbits(64)))) for _ in range(16))
        table.append(STATE.pack(*words[:6], flags, *words[6:], memory))
    return b"".join(table)


def survey(runner: Runner, has: "set[str]") -> "dict[str, int]":
    """CRC-32 of the results of each form that a processor with these features has, by its name and how the flags before it were set."""
    found = [form for form in forms() if form.feature is None or form.feature in has]
    return {f"{form.name} after {how}": zlib.crc32(runner.run(form, how)) for form in found for how in BEFORE}


def rdtsc_goes_back(times: int = 1000) -> bool:
    """Whether one of `times` successive readings of the time-stamp counter is lower than the previous one."""
    # push %rbx; loop: rdtsc; shl $32, %rdx; or %rdx, %rax; mov %rax, (%rdi); add $8, %rdi; dec %rsi; jnz loop; pop %rbx; ret
    code = bytes.fromhex("53  0f 31  48 c1 e2 20  48 09 d0  48 89 07  48 83 c7 08  48 ff ce  75 eb  5b  c3")
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page[:len(code)] = code
    read = (ctypes.c_uint64 * times)()
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    call(ctypes.addressof(read), times)
    return any(later < earlier for earlier, later in zip(read, read[1:]))

