"""The message of a failure says what is missing, and where."""

import ast
import errno
import socket
from functools import cache
from pathlib import Path

import pytest

import netns
from fixtures.topologies import LAN
from netns.attempt import refused
from netns.named import NamedDict, NamedList
from netns.observe.counters import Counted

ROOT = Path(__file__).parents[3]
# What gives a list that may have another length than a test expects.
LISTS = {"sent", "received", "probes", "packets", "entries", "acquires", "expires", "answers", "syn_acks", "too_big", "ospf", "segments"}


@cache
def nodes(source):
    return list(ast.walk(ast.parse(source)))


def of_any_length(value):
    """Whether this is one of these lists, a capture, or a choice from a list."""
    if isinstance(value, ast.Call):
        return getattr(value.func, "attr", getattr(value.func, "id", "")) in LISTS
    chosen = isinstance(value, ast.ListComp) or isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Slice) \
        and isinstance(value.value, ast.Call) and of_any_length(value.value)
    return chosen or isinstance(value, ast.Name) and value.id == "packets"


def bare_unpackings(source):
    """The lines that unpack such a list as it is."""
    for node in nodes(source):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], (ast.Tuple, ast.List)) and of_any_length(node.value):
            yield node.lineno


def bare_indices(source):
    """The lines that take one of a choice from a list, whether or not there is one."""
    for node in nodes(source):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.ListComp) and not isinstance(node.slice, ast.Slice):
            yield node.lineno


def extremes_of_nothing(source):
    """The lines that ask for the largest or smallest of such a list, which may be empty."""
    for node in nodes(source):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("max", "min") and not node.keywords \
                and isinstance(node.args[0], ast.GeneratorExp) and of_any_length(node.args[0].generators[0].iter):
            yield node.lineno


def nexts_without_default(source):
    for node in nodes(source):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "next" and len(node.args) == 1 \
                and isinstance(node.args[0], ast.GeneratorExp):
            yield node.lineno


def names_of_no_error(source):
    """The lines that look up an errno's name, which 0 has not."""
    for node in nodes(source):
        if isinstance(node, ast.Subscript) and getattr(node.value, "attr", "") == "errorcode":
            yield node.lineno


def raises_of_an_errno(source):
    for node in nodes(source):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "raises" and getattr(node.args[0], "id", "").endswith("Error"):
            yield node.lineno


@pytest.mark.parametrize("find, wrong, right", [
    (bare_unpackings, "[one] = packets.sent()", "one = packets.sent().only()"),
    (bare_unpackings, "one, two = packets", "one, two = packets.exactly(2)"),
    (bare_unpackings, "[one] = answers(seen)", "client, server = net.nodes('client', 'server')"),
    (bare_unpackings, "[one] = [each for each in seen]", "one = seen.which('small', small).only()"),
    (bare_unpackings, "one, two = packets.sent()[-2:]", "one, two = packets.sent().exactly(4)[-2:]"),
    (bare_indices, "[each for each in seen][0]", "seen.which('small', small)[0]"),
    (extremes_of_nothing, "max(each for each in packets.sent())", "max(each for each in packets.sent().some())"),
    (nexts_without_default, "next(each for each in seen)", "next((each for each in seen), None)"),
    (names_of_no_error, "errno.errorcode[conn.connect_ex(target)]", "errno_name(conn.connect_ex(target))"),
    (raises_of_an_errno, "pytest.raises(OSError)", "pytest.raises(ExpectationFailed)"),
], ids=lambda value: getattr(value, "__name__", None))
def test_no_test_leaves_its_message_to_python(find, wrong, right):
    """Use NamedList.only(), exactly(), some() and which(), and netns.attempt.refused() and errno_name()."""
    assert list(find(wrong)) == [1] and list(find(right)) == []
    files = [path for path in (ROOT / "tests").rglob("*.py") if "harness" not in path.parts]
    assert len(files) > 100
    assert [f"{path.relative_to(ROOT)}:{line}" for path in files for line in find(path.read_text())] == []


def test_a_wait_needs_a_name():
    with pytest.raises(TypeError, match="needs a name"):
        netns.eventually(lambda: 1, 1, 1, within=1)
    with pytest.raises(TypeError, match="needs a name"):
        netns.eventually("the number", lambda: 1, lambda number: number, within=1)


@pytest.mark.parametrize("use, message", [
    (lambda found: found.only(), "packets sent by client: expected 1, found 2:\n  a\n  b"),
    (lambda found: found.exactly(3), "packets sent by client: expected 3, found 2:\n  a\n  b"),
    (lambda found: found.which("with a c", lambda each: each == "c").only(), "packets sent by client with a c: expected 1, found 0"),
    (lambda found: found[2], "packets sent by client: expected at least 3, found 2:\n  a\n  b"),
    (lambda found: NamedDict("times, by port", {1: 2})[3], "times, by port: no entry for 3, found {1: 2}"),
])
def test_a_wrong_number_is_said_with_what_there_is(use, message):
    with pytest.raises(netns.WrongCount) as failure:
        use(NamedList("packets sent by client", "ab"))
    assert str(failure.value) == message


@pytest.mark.parametrize("number, message", [
    (None, "a datagram: expected EMSGSIZE, but it succeeded"), (errno.EPERM, "a datagram: expected EMSGSIZE, got EPERM"),
])
def test_what_is_not_refused_is_named(number, message):
    with pytest.raises(netns.ExpectationFailed) as failure, refused("EMSGSIZE", "a datagram"):
        if number:
            raise OSError(number, "")
    assert str(failure.value) == message


def test_hosts_sockets_say_what_has_not_come_and_counters_what_there_is_not():
    with netns.build(LAN) as network:
        client, server = network.nodes("client", "server")
        listener = netns.listen(server, socket.AF_INET)
        listener.settimeout(0.01)
        with pytest.raises(TimeoutError, match=r"^server: the TCP socket on \S+ port \d+ accepted no connection within 0.01 s$") as failure:
            listener.accept()
        assert failure.value.errno is None
        conn, peer = netns.tcp_pair(client, server, socket.AF_INET)
        peer.settimeout(0.01)
        with pytest.raises(netns.SocketTimeout,
                           match=r"^server: the TCP socket on \S+ port \d+ connected to \S+ port \d+ received no data within"):
            peer.recv(1)
        with pytest.raises(netns.ExpectationFailed, match=r"^Tcp.CurrEstab of client: expected at least 2 within 0 s, last value 1$"):
            client.await_counter("Tcp.CurrEstab", netns.at_least(2), within=0)
        counted = client.counters().nonzero()
        assert isinstance(counted, Counted) and counted["Tcp.RetransSegs"] == 0
        with pytest.raises(netns.MissingFeature, match="^the kernel has no counter Tcp.NoSuch$"):
            counted["Tcp.NoSuch"]
