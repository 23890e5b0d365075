"""What changed between two kernels, each change once: kinds, what is folded, what is vocabulary, what is explained and what is chance."""

import json

import pytest

from cli.__main__ import main
from report import chance, expected
from report.changes import changes, counted
from report.expected import ExpectedError, explain
from report.files import write_files
from report.known import version_key
from report.results import KernelResult, TestResult
from report.verdict import compare

RUN = {"started": "2026-01-01T00:00:00+00:00", "duration_s": 1.5, "arguments": [], "python": "3.11.2", "exit_status": 0}
SYN = "sends ipv4 ttl 64 tos 0x0 DF tcp S seq 0 ack 0 window 64240 len 0 mss 1460 option 4"
SYN6 = "sends ipv6 ttl 64 tos 0x0 tcp S seq 0 ack 0 window 64800 len 0 mss 1440 option 4"
RETRANSMITTED = {"client counts Tcp.RetransSegs": 1, "client counts Tcp.OutSegs": 1, "client counts IpExt.OutOctets": 60}
CHANGE = """
[[change]]
id = "a"
sentence = "SYNs are more"
kinds = ["more: tcp S"]
kernels = ["6.5.."]
commit = "ccce324dabfe"
subject = "tcp: s"
"""


def kernel(version, *traffics, counters=(), name="t.py::test_{}"):
    """A kernel with a test for each traffic."""
    tests = [TestResult(name.format(number), traffic=dict(traffic)) for number, traffic in enumerate(traffics)]
    return KernelResult(version, version, version=version, tests=tests, counters=list(counters))


def keys(kinds):
    return [(kind.key, len(kind.tests)) for kind in kinds]


def test_a_change_is_one_kind_whatever_host_family_and_size():
    old = kernel("6.1", {f"client {SYN}": 1}, {f"server {SYN6}": 3})
    new = kernel("6.12", {f"client {SYN}": 2}, {f"server {SYN6}": 4})

    assert keys(changes(old, new)) == [("more: tcp S", 2)]


def test_counters_that_moved_with_the_packets_follow_them_and_others_do_not():
    """One SYN more: RetransSegs, OutSegs and octets follow, a counter that moved by 1000 does not."""
    old = kernel("6.1", {f"client {SYN}": 1, "client counts Ip.InDelivers": 0})
    new = kernel("6.12", {f"client {SYN}": 2, **RETRANSMITTED, "client counts Ip.InDelivers": 1000}, counters=["Ip.InDelivers"])
    old.counters = ["Tcp.RetransSegs", "Tcp.OutSegs", "IpExt.OutOctets", "Ip.InDelivers"]

    packets, counter = changes(old, new)

    assert (packets.key, counter.key) == ("more: tcp S", "higher: counter Ip.InDelivers")
    assert set(packets.follows) == {"higher: counter Tcp.RetransSegs", "higher: counter Tcp.OutSegs", "higher: counter IpExt.OutOctets"}


def test_a_retransmission_is_one_change():
    old = kernel("6.1", {f"client {SYN}": 1}, counters=["Tcp.RetransSegs", "Tcp.OutSegs", "IpExt.OutOctets"])
    new = kernel("6.12", {f"client {SYN}": 2, f"client {SYN} at": 1.0, **RETRANSMITTED})

    assert keys(changes(old, new)) == [("more: tcp S", 1)]


def test_of_counters_in_the_same_tests_the_one_in_most_tests_leads():
    every = {"c counts Tcp.A": 5}
    old = kernel("6.1", every | {"c counts Tcp.B": 5}, every, every | {"c counts Tcp.C": 5})
    new = kernel("6.12", {"c counts Tcp.A": 6, "c counts Tcp.B": 6}, {"c counts Tcp.A": 6}, {"c counts Tcp.A": 6, "c counts Tcp.C": 9})

    kinds = changes(old, new)

    assert keys(kinds) == [("higher: counter Tcp.A", 3), ("higher: counter Tcp.C", 1)]
    assert kinds[0].follows == {"higher: counter Tcp.B": 1}


def test_a_kind_leads_only_where_nothing_that_leads_moved_as_far():
    """It is not in the tests of another change, which may be explained."""
    zero, a, b = {"c counts Tcp.A": 0, "c counts Tcp.B": 0}, {"c counts Tcp.A": 1}, {"c counts Tcp.B": 1}
    kinds = changes(kernel("6.1", *[zero] * 4), kernel("6.12", zero | a, zero | a, zero | a | b, zero | b))

    assert [(kind.key, kind.tests) for kind in kinds] == [
        ("higher: counter Tcp.A", ["t.py::test_0", "t.py::test_1", "t.py::test_2"]), ("higher: counter Tcp.B", ["t.py::test_3"])]
    assert kinds[0].follows == {"higher: counter Tcp.B": 1}


@pytest.mark.parametrize("names, key", [([], "new: counter Tcp.New"), (["Tcp.New"], "higher: counter Tcp.New")])
def test_a_counter_is_new_only_where_the_old_kernel_has_it_not(names, key):
    [kind] = changes(kernel("6.1", {"c counts Tcp.A": 1}, counters=names), kernel("6.12", {"c counts Tcp.A": 1, "c counts Tcp.New": 3}))

    assert (kind.key, kind.vocabulary) == (key, not names)


def test_a_line_in_other_words_is_one_change_and_behaviour_comes_first():
    line = "the kernel logs: gre: GRE over IPv4 demultiplex{}r driver"
    kinds = changes(kernel("6.1", {line.format("o"): 1, "c counts A.B": 1}), kernel("6.12", {line.format("e"): 1, "c counts A.B": 2}))

    assert [kind.vocabulary for kind in kinds] == [False, True]
    new, old = (f"'gre: GRE over IPv4 demultiplex{end}r driver'" for end in "eo")
    assert kinds[1].text == f"the kernel now logs {new} instead of {old} (1 test)"


def test_what_a_module_says_when_it_is_loaded_lands_in_any_test():
    line = {"the kernel logs: netem: version #": 1}
    others = [line] * 6

    assert changes(kernel("6.1", {}, line, *others), kernel("6.1", line, {}, *others)) == []
    assert changes(kernel("6.1", {"c counts A.B": 1}, *others), kernel("6.1", {"c counts A.B": 1} | line, *others)) == []
    [kind] = changes(kernel("6.1", line, line, line), kernel("6.12", *[{"c counts A.B": 0}] * 3))
    assert kind.key == "gone: log netem: version #"


@pytest.mark.parametrize("line", ["ipip: IPv4 and MPLS over IPv4 tunneling driver", "gre: GRE over IPv4 demultiplexor driver",
                                  "Initializing XFRM netlink socket", "IPVS: [rr] scheduler unregistered.", "IPVS: ipvs unloaded."])
def test_lines_of_module_loading_land_anywhere_in_another_order(line):
    """In other shards the first test that needs a module is another one, in each machine."""
    line = {f"the kernel logs: {line}": 1}
    count = {"c counts A.B": 1}
    assert changes(kernel("6.1", *[line | count] * 3, *[count] * 20), kernel("6.1", *[count] * 3, *[line | count] * 20)) == []


def test_xfrm_line_that_no_recorded_test_has_is_not_gone():
    line = {"the kernel logs: Initializing XFRM netlink socket": 1}
    assert changes(kernel("6.1", line), kernel("6.12", {"c counts A.B": 0})) == []


def test_counters_that_moved_with_packets_of_chance_are_chance():
    """A delayed ACK more: hosts count it as a segment, and nobody looks at it. A counter that moved further is a change."""
    old = kernel("6.1", {f"client {SYN}": 1, "client counts Tcp.OutSegs": 1, "client counts IpExt.OutOctets": 60, "client counts Ip.X": 0})
    new = kernel("6.12", {f"client {SYN}": 2, "client counts Tcp.OutSegs": 2, "client counts IpExt.OutOctets": 120,
                          "client counts Ip.X": 9})
    old.counters = ["Ip.X"]

    assert keys(changes(old, new, {"t.py::test_0": {"tcp S"}})) == [("higher: counter Ip.X", 1)]


def test_how_often_a_line_comes_that_a_rate_limit_holds_back_is_chance():
    """One that only the new kernel has is still a change."""
    record, lost = "the kernel logs: audit: type=# audit(#.#:#): pid=#", "the kernel logs: audit: audit_lost=#"
    assert changes(kernel("6.1", {record: 11}, {record: 3}), kernel("6.12", {record: 14}, {record: 7})) == []

    [kind] = changes(kernel("6.1", {record: 11}), kernel("6.12", {record: 14, lost: 1}))
    assert kind.key == "new: log audit: audit_lost=#"


def test_the_same_packets_with_another_field_are_one_change():
    old = kernel("6.1", {f"client {SYN}": 3})
    new = kernel("6.12", {f"client {SYN}".replace("ttl 64", "ttl 63"): 3})

    [kind] = changes(old, new)

    assert kind.text == "packets differ in: tcp S, ttl (1 test)"


def test_when_a_timer_sends_is_behaviour_and_when_a_test_does_is_not():
    def at(seconds):
        return {f"client {SYN}": 2, f"client {SYN} at": seconds}

    assert keys(changes(kernel("6.1", at(3.1)), kernel("6.12", at(2.0)))) == [("earlier: tcp S", 1)]
    assert changes(kernel("6.1", at(0.419)), kernel("6.12", at(0.236))) == []


@pytest.mark.parametrize("old, new, explained", [
    ("6.1", "6.12", True), ("6.12", "6.1", True), ("6.1", "6.4", False), ("6.6", "6.12", False)])
def test_a_change_is_explained_if_it_came_between_the_two(tmp_path, old, new, explained):
    """Seen from the newer kernel as well."""
    (tmp_path / "changes.toml").write_text(CHANGE)
    few, many = {f"client {SYN}": 1}, {f"client {SYN}": 2}
    kernels = (kernel(old, few), kernel(new, many))
    if version_key(old) > version_key(new):
        kernels = (kernel(old, many), kernel(new, few))

    kinds = changes(*kernels, expected=explain(*kernels, path=tmp_path / "changes.toml"))

    assert [bool(kind.expected) for kind in kinds] == [explained]
    assert counted(kinds).startswith(f"1 behaviour change: {int(explained)} explained, {int(not explained)} not; ")


@pytest.mark.parametrize("old, explained", [("6.1", True), ("6.6", False)])
def test_a_change_in_either_direction_is_explained_only_if_it_came_between_the_two(tmp_path, old, explained):
    (tmp_path / "changes.toml").write_text(CHANGE.replace('["more: tcp S"]', '["more: tcp S", "fewer: tcp S"]'))
    for few, many in ((1, 2), (2, 1)):
        kernels = kernel(old, {f"client {SYN}": few}), kernel("6.12", {f"client {SYN}": many})

        [kind] = changes(*kernels, expected=explain(*kernels, path=tmp_path / "changes.toml"))

        assert bool(kind.expected) is explained


def test_a_kind_may_have_a_cause_in_each_of_its_tests(tmp_path):
    """And is not explained if one of them has none."""
    def entry(name, test):
        return CHANGE.replace('id = "a"', f'id = "{name}"\ntests = ["t.py::test_{test}"]').replace("SYNs are", f"SYNs of {name} are")

    (tmp_path / "changes.toml").write_text(entry("a", 0) + entry("b", 1))
    few, many = {f"client {SYN}": 1}, {f"client {SYN}": 2}
    for tests, why in ((2, "SYNs of a are more (ccce324dabfe, tcp: s); SYNs of b are more (ccce324dabfe, tcp: s)"), (3, None)):
        kernels = kernel("6.1", *[few] * tests), kernel("6.12", *[many] * tests)

        [kind] = changes(*kernels, expected=explain(*kernels, path=tmp_path / "changes.toml"))

        assert kind.expected is None if why is None else str(kind.expected) == why


def test_what_is_explained_is_shown_by_itself():
    """Even where another kind in the same tests would lead."""
    old = kernel("6.1", *[{"c counts Tcp.A": 1, "c counts Tcp.B": 1}] * 3)
    only_a = {"c counts Tcp.A": 2, "c counts Tcp.B": 1}
    new = kernel("6.12", {"c counts Tcp.A": 2, "c counts Tcp.B": 2}, only_a, only_a)

    def entry(kind, tests):
        return "why" if kind == "higher: counter Tcp.B" else None

    assert keys(changes(old, new)) == [("higher: counter Tcp.A", 3)]
    found = [(kind.key, kind.expected) for kind in changes(old, new, expected=entry)]
    assert found == [("higher: counter Tcp.A", None), ("higher: counter Tcp.B", "why")]


@pytest.mark.parametrize("text, complaint", [
    (CHANGE.replace('id = "a"\n', ""), "change 1 (without an id): 'id' is a required property"),
    (CHANGE.replace("6.5..", "6.5"), "change 1 (a): '6.5' is not a version range FIRST..FIXED"),
    (CHANGE.replace("ccce324dabfe", "ccce"), "change 1 (a): commit: 'ccce' does not match '^[0-9a-f]{12,40}$'"),
    (CHANGE.replace('subject = "tcp: s"\n', ""), "change 1 (a): needs 'subject', that of the commit"),
    (CHANGE.replace('commit = "ccce324dabfe"', ""), "change 1 (a): needs 'commit', or 'unknown' with the reason why there is none"),
    (CHANGE.replace('["more: tcp S"]', "3"), "change 1 (a): kinds: 3 is not of type 'array'"),
    (CHANGE + "until = 3\n", "change 1 (a): Additional properties are not allowed ('until' was unexpected)"),
    (CHANGE + CHANGE, "changes.toml: duplicate change id a"),
    ("change = [3]\n", "change 1 (not a table): 3 is not of type 'object'"),
    ("change = 3\n", "changes.toml: "),
    ("[[change]\n", "changes.toml: "),
])
def test_a_bad_entry_is_named(tmp_path, text, complaint):
    (tmp_path / "changes.toml").write_text(text)

    with pytest.raises(ExpectedError) as failure:
        expected.load(tmp_path / "changes.toml")

    assert complaint in str(failure.value)
    assert "\n" not in str(failure.value)


def test_the_projects_own_files_can_be_used():
    assert all(entry.commit or entry.unknown for entry in expected.load())
    assert chance.load()


def test_chance_is_what_moved_between_runs_of_one_kernel(tmp_path):
    """And no comparison sees it, in no parameter set of that test; in another test it is seen."""
    for number in 1, 2:
        (tmp_path / str(number)).mkdir()
        runs = kernel("6.12", {f"client {SYN}": number}, name="t.py::test_a[{}]"), kernel("6.1", {f"client {SYN}": number})
        write_files(tmp_path / str(number), RUN, runs[:1] if number == 1 else runs, [])
    files = [str(tmp_path / f"{number}/results.json") for number in (1, 2)]

    assert main(["chance", *files, "-o", str(tmp_path / "chance.json")]) == 0

    found = chance.load(tmp_path / "chance.json")
    assert json.loads((tmp_path / "chance.json").read_text()) == {"made_from": ["6.12, 2 runs"], "moves": {"t.py::test_a": ["tcp S"]}}
    once, twice = {f"client {SYN6}": 1}, {f"client {SYN6}": 2}
    assert changes(kernel("6.1", once, name="t.py::test_a[{}]"), kernel("6.12", twice, name="t.py::test_a[{}]"), found) == []
    assert len(changes(kernel("6.1", once), kernel("6.12", twice), found)) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"moves": {}}', '{"made_from": [], "moves": 3}', '{"made_from": [], "moves": {"a": 3}}'])
def test_a_damaged_chance_file_is_named(tmp_path, capsys, text):
    (tmp_path / "chance.json").write_text(text)

    with pytest.raises(chance.ChanceError, match=r"^chance\.json: not written by ./kdrift chance$"):
        chance.load(tmp_path / "chance.json")

    for number in 1, 2:
        (tmp_path / str(number)).mkdir()
        write_files(tmp_path / str(number), RUN, [kernel("6.12", {})], [])
    files = [str(tmp_path / f"{number}/results.json") for number in (1, 2)]
    assert main(["chance", *files, "--add", "-o", str(tmp_path / "chance.json")]) == 2
    assert capsys.readouterr().err == "kdrift: chance.json: not written by ./kdrift chance\n"
    assert (tmp_path / "chance.json").read_text() == text


def test_a_kernel_that_ran_once_shows_no_chance(tmp_path, capsys):
    write_files(tmp_path, RUN, [kernel("6.1", {})], [])

    assert main(["chance", str(tmp_path / "results.json"), "-o", str(tmp_path / "chance.json")]) == 2
    assert capsys.readouterr().err == "kdrift: no kernel was run twice in these files\n"


def test_a_summary_stays_under_sixty_lines_and_has_a_bit_of_everything(tmp_path):
    counts = {f"c counts Tcp.N{number}": 1 for number in range(70)}
    old = kernel("6.1", *[{name: 1} for name in counts])
    new = kernel("6.12", *[{name: 2} for name in counts])
    for tests, outcomes in ((old.tests, "passed known"), (new.tests, "failed passed")):
        for mark, outcome in zip("ab", outcomes.split(), strict=True):
            tests += [TestResult(f"t.py::test_{mark}[{number}]", outcome, issue="raw-hdrincl-ihl-lt5") for number in range(50)]
    write_files(tmp_path, RUN, [old, new], [compare(old, new)])

    text = (tmp_path / "summary.md").read_text()

    assert 50 < text.count("\n") < 60
    titles = [line.split(":")[0] for line in text.splitlines() if line.startswith("## ")]
    assert titles == ["## Regressions", "## Changes", "## Fixed", "## Kernels"]
    assert text.count("| and ") == 3
