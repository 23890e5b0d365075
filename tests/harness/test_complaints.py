"""What no test looks for and every test would notice: warnings of the kernel, and registers that no processor has."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from common.status import Exit
from fixtures.oops import impossible
from tests.harness.sessions import run
from vm.launcher import ending

# The registers of an oops, by the kernel that wrote them.
POSSIBLE = {
    "3.16": """[  104.123456] general protection fault: 0000 [#1] SMP
[  104.123460] RIP: 0010:[<ffffffff8143d2a5>]  [<ffffffff8143d2a5>] skb_release_data+0x75/0x100
[  104.123470] RSP: 0018:ffff88003fc03e10  EFLAGS: 00010246""",
    "5.10": """[109410.717323] kernel BUG at net/xfrm/xfrm_user.c:2242!
[109410.717343] invalid opcode: 0000 [#1] SMP NOPTI
[109410.717418] RIP: 0010:xfrm_get_ae+0x173/0x1a0 [xfrm_user]
[109410.717480] RSP: 0018:ffffc9000058bae8 EFLAGS: 00000286
[109410.717980] RIP: 0033:0x7ffff7d2a4f7
[109410.718020] RSP: 002b:00007fffffffd4a8 EFLAGS: 00000246 ORIG_RAX: 000000000000002c""",
    "5.14": """[   51.016033][    C0] traps: PANIC: double fault, error_code: 0x0
[   51.016047][    C0] double fault: 0000 [#1] SMP PTI
[   51.016065][    C0] RIP: 0010:perf_swevent_get_recursion_context+0x0/0x70
[   51.016086][    C0] RSP: 0018:fffffe000000b000 EFLAGS: 00010046""",
    "6.18": """[109423.740142] Oops: invalid opcode: 0000 [#1] SMP NOPTI
[109423.740234] RIP: 0010:xfrm_get_ae+0x173/0x1c0 [xfrm_user]
[109423.740327] RSP: 0018:ffffc900005f38d8 EFLAGS: 00000286""",
    "of a kernel thread": """[   51.412800] BUG: kernel NULL pointer dereference, address: 0000000000000008
[   51.412900] RIP: 0010:process_one_work+0x1a/0x3c0
[   51.412910] RSP: 0018:ffffc900000b7e78 EFLAGS: 00010046
[   51.413783]  rewind_stack_and_make_dead+0x16/0x20
[   51.414045] RIP: 0000:0x0
[   51.414191] Code: Unable to access opcode bytes at 0xffffffffffffffd6.
[   51.414595] RSP: 0000:0000000000000000 EFLAGS: 00000000 ORIG_RAX: 0000000000000000""",
    "of an overwritten stack": """[   12.100000] Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: f+0x1/0x2
[   12.100010] RIP: 4141:0x4141414141414141
[   12.100020] RSP: 4141:4141414141414141 EFLAGS: 41414141 ORIG_RAX: 4141414141414141""",
}
WRITTEN = [name for name in POSSIBLE if name[0].isdigit()]


def end_of(lines):
    """How a machine has ended whose console ends so."""
    return ending(SimpleNamespace(console_tail=lambda _most: lines, complaint=lambda: "status 0", directory=Path(__file__).parent), None)


@pytest.mark.parametrize("kernel", POSSIBLE)
def test_an_oops_is_a_crash(kernel):
    lines = POSSIBLE[kernel].splitlines()
    assert impossible(lines) is None
    end = end_of(lines)
    assert (end["end"], end["console"]) == ("crashed", lines)


# Seen behind cmpxchg16b; bit 1 clear; bit 3, 5, 15, VM, VIP and bit 22 set.
@pytest.mark.parametrize("flags", ["1dbe9342", "00010244", "0001024e", "00010266", "00018246", "00030246", "00110246", "00410246"])
@pytest.mark.parametrize("kernel", WRITTEN)
def test_an_oops_with_registers_that_cannot_be_is_the_emulators(kernel, flags):
    text = POSSIBLE[kernel]
    frame = next(word for word in ("00010246", "00000286", "00010046") if word in text)
    lines = text.replace(frame, flags).splitlines()
    end = end_of(lines)
    assert (end["end"], end["console"]) == ("lost", lines)
    assert end["why"].startswith("emulator error, impossible registers") and f"EFLAGS: {flags}" in end["why"]


def test_bits_that_software_may_set_are_no_ones_error():
    """TF, NT, RF, AC and ID, and IOPL of 3: a test may do so."""
    assert impossible(["RIP: 0033:0x7ffff7d2a4f7", "RSP: 002b:00007fffffffd4a8 EFLAGS: 00257fd7"]) is None


def test_a_debug_trap_that_nobody_asked_for_is_the_emulators():
    """On 6.12, right after an interrupt had returned to wrong flags."""
    line = "[   61.2] WARNING: CPU: 0 PID: 88 at arch/x86/kernel/traps.c:1055 exc_debug_kernel+0xd2/0x160"
    assert impossible([line]) == line
    assert impossible(["[   61.3]  exc_debug_kernel+0xaf/0x170"]) is None


def test_a_warning_fails_the_test_and_other_words_do_not(tmp_path):
    session = run(tmp_path, "test_complaints.py")
    tests = session.tests()
    assert tests["test_is_there_when_the_kernel_says_something"]["outcome"] == "passed"
    assert tests["test_is_there_when_the_kernel_warns"]["outcome"] == "failed"
    assert "the kernel complains:" in tests["test_is_there_when_the_kernel_warns"]["message"]
    lost = tests["test_is_there_when_registers_cannot_be"]
    assert (lost["outcome"], lost["attempts"]) == ("lost", ["lost"])
    assert "emulator error, impossible registers: " in lost["message"].splitlines()[0]
    assert tests["test_is_there_when_the_machine_is_new"]["outcome"] == "passed"
    assert session.status == Exit.REGRESSION                # one failed, beside the one that was lost
