"""What a failure shows: the same each time, and not the same for another failure."""
import pytest

from report.signature import general, matches, signature

_WAIT = """    def test_x(net):
>       eventually(lambda: slab.grown(before), {}, within=20, every=1)

tests/larval/test_held_route.py:38:
_ _ _ _ _ _ _ _ _ _ _ _
>           raise ExpectationFailed(text)
E           netns.errors.ExpectationFailed: after 20.006 s the last value is {'ip_dst_cache': 1}, expected {}
"""
_OOPS = """the kernel crashed: [ 1291.134832] BUG: kernel NULL pointer dereference, address: 0000000000000010
[ 1291.134832] BUG: kernel NULL pointer dereference, address: 0000000000000010
[ 1291.134853] #PF: supervisor read access in kernel mode
[ 1291.135025] RIP: 0010:icmp_unreach+0x1d7/0x230
[ 1291.135059] Code: 3e 80 48 02 20
[ 1291.135364]  icmp_rcv+0x24b/0x3d0
[ 1291.136000] RIP: 0033:0x7ffff7dc0ba4"""
_LOCKUP = """the kernel crashed: [  327.600063] watchdog: BUG: soft lockup - CPU#0 stuck for 3s! [python3:125]
[  327.600139] RIP: 0010:kernel_text_address+0x6a/0x120"""
_HANG = """the machine was lost: hang: no output from the guest for 120 s
backtrace after an injected NMI:
[164913.244450] RIP: 0010:native_safe_halt+0xe/0x20"""


@pytest.mark.parametrize("message, traceback, shown", [
    ("netns.errors.ExpectationFailed: after 20.006 s the last value is {'ip_dst_cache': 1}, expected {}", _WAIT,
     "netns.errors.ExpectationFailed: after # s the last value is {'ip_dst_cache': #}, expected {}; at: "
     "eventually(lambda: slab.grown(before), {}, within=20, every=1)"),
    ("AssertionError: assert 3.9237575079896487 <= 0.228\n +  where 3.92 = <function measure.<locals>.record at 0x7fffef6a1a80>(...)", "",
     "AssertionError: assert # <= #"),
    ("assert [<1767334994....r / UDPerror>] == []\n  \n  Left contains one more item: <1767334994.309876 Ether / IP", "",
     "assert [<#....r / UDPerror>] == []"),
    ("AssertionError: assert {'enabled': '... 'EPERM', ...} == {'enabled': '... 'EPERM', ...}\n  \n"
     "  Omitting 7 identical items, use -vv to show\n"
     "  Differing items:\n  {'trim': 'accepted'} != {'trim': 'EPERM'}\n  Use -v to get more diff", "",
     "AssertionError: assert {'enabled': '... 'EPERM', ...} == {'enabled': '... 'EPERM', ...}; {'trim': 'accepted'} != {'trim': 'EPERM'}"),
    ("OSError: [Errno 98] Address already in use", "", "OSError: EADDRINUSE Address already in use"),
    ("Failed: DID NOT RAISE OSError", ">       with pytest.raises(OSError) as failure:\nE       Failed: DID NOT RAISE OSError",
     "Failed: DID NOT RAISE OSError; at: with pytest.raises(OSError) as failure:"),
    (_OOPS, "", "BUG: kernel NULL pointer dereference, address: # in icmp_unreach"),
    ("the kernel crashed: [   11.259298] kernel BUG at net/xfrm/xfrm_user.c:2242!\n"
     "[   11.2] RIP: 0010:xfrm_get_ae.isra.0+0x173/0x1a0 [xfrm_user]", "",
     "kernel BUG at net/xfrm/xfrm_user.c:#! in xfrm_get_ae"),
    (_LOCKUP, "", "watchdog: BUG: soft lockup - CPU#0 stuck for #s!"),
    (_HANG, "", "hang: no output from the guest for # s"),
    ("Failed: the kernel complains:\n[   12.5] WARNING: CPU: 0 PID: 125 at net/core/dst.c:171 dst_release+0x5d/0x60\n"
     "[   12.6] Modules linked in:", "",
     "the kernel complains: WARNING: CPU: 0 PID: # at net/core/dst.c:# dst_release+#/#"),
    ("", "", ""),
])
def test_a_signature_says_what_is_the_same_each_time(message, traceback, shown):
    assert signature(message, traceback) == shown


@pytest.mark.parametrize("one, other", [
    ("assert 'fe80::200:5eff:fe00:5302' == 'fe80::77'", "assert 'fe80::1' == '2001:db8:ff::1'"),
    ("after 20.006 s", "after 20.1 s"), ("from 192.0.2.1:4711", "from 10.0.0.200:80"),
    ("<netns.x.Y object at 0x7fffeff7f4d0>", "<netns.x.Y object at 0x1>"),
    ("cap_pi=000001ffffffffff", "cap_pi=00000000a80425fb"), ("mac 02:00:5e:00:53:01", "mac 02:00:5e:00:53:ff"), ("for 3s!", "for 12s!"),
    ("host1: nothing came", "host12: nothing came"),
])
def test_what_changes_from_run_to_run_is_general(one, other):
    assert general(one) == general(other)
    assert general(general(one)) == general(one)


@pytest.mark.parametrize("one, other", [
    ("assert 0 <= 5", "assert 9 <= 5"), ("OSError: [Errno 98] x", "OSError: [Errno 13] x"), ("{'ip_dst_cache': 1}", "{'ip6_dst_cache': 1}"),
    ("assert [True] == [False]", "assert [False] == [True]"), ("[] == [(23, 1)]", "[(4, 1)] == [(23, 1)]"),
])
def test_what_makes_another_failure_is_not(one, other):
    assert general(one) != general(other)


def test_the_statement_tells_two_failures_of_one_text_apart():
    text = "netns.errors.ExpectationFailed: not so after # s, with these packets:"
    assert matches(f"{text}; at: here.until(sent, within=5)", f"{text}; at: here.until(sent, within=5)")
    assert not matches(f"{text}; at: here.until(sent, within=5)", f"{text}; at: there.until(len, within=5)")


def test_a_signature_holds_under_other_options_of_pytest():
    recorded = "assert {'enabled': '... 'EPERM', ...} == {'enabled': '... 'EPERM', ...}; at: assert seen == wanted"
    in_full = "assert {'enabled': 'accepted', 'trim': 'EPERM', 'a': 1} == {'enabled': 'EPERM', 'trim': 'EPERM', 'a': 1}"

    assert matches(recorded, f"{in_full}; at: assert seen == wanted"), "-vv"
    assert matches(recorded, recorded.partition("; at: ")[0]), "--tb=no"
    assert not matches(recorded, "assert [] == {'enabled': 'EPERM', 'trim': 'EPERM', 'a': 1}; at: assert seen == wanted")
    assert not matches("assert [...] == []", "assert [1, 2] == []"), "too little is left beside the dots"
