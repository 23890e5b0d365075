"""What the kernel does not have is told from what goes wrong, and named."""

import errno
import socket

import pytest

import netns
from fixtures.topologies import LAN
from netns import unsupported

RULES = "add table arp kdrift\nadd chain arp kdrift in { type filter hook input priority 0; }\nadd rule arp kdrift in drop\n"


@pytest.mark.parametrize(("command", "stdin", "said", "feature"), [
    (["nft", "-f", "-"], RULES, "Error: Could not process rule: Operation not supported", "nftables for 'add rule arp kdrift in drop'"),
    (["nft", "-f", "-"], RULES, "Error: Could not process rule: No such file or directory", "nftables for 'add rule arp kdrift in drop'"),
    (["nft", "-f", "-"], RULES, "Error: No such file or directory; did you mean chain 'in'", "nftables for 'add rule arp kdrift in drop'"),
    (["nft", "list", "tables"], "", "netlink: Error: cache initialization failed: Invalid argument", "nf_tables (CONFIG_NF_TABLES)"),
    (["nft", "list", "tables"], "", "netlink: Error: cache initialization failed: Operation not permitted", None),
    (["nft", "delete", "table", "inet", "x"], "", "Error: Could not process rule: No such file or directory", None),
    (["nft", "-f", "-"], RULES, "Error: syntax error, unexpected add", None),
    (["ip6tables-legacy-restore"], "", "Warning: Extension REJECT revision 0 not supported, missing kernel module?",
     "iptables extension REJECT"),
    (["iptables-legacy"], "", "can't initialize iptables table `nat': Table does not exist", "iptables table nat"),
    (["iptables-legacy-restore"], "", "iptables-restore: unable to initialize table 'filter'", "iptables table filter"),
    (["iptables-nft"], "", "iptables: Bad rule (does a matching rule exist in that chain?).", None),
    (["ipvsadm", "--restore"], "-A -t 192.0.2.1:80 -s rr", "Scheduler or persistence engine not found", "IPVS scheduler rr"),
    (["ipvsadm", "-A"], "", "Can't initialize ipvs: Protocol not available", "ip_vs (CONFIG_IP_VS)"),
    (["ipvsadm", "-a"], "", "No such service", None),
    (["ip", "link", "add", "vrf0", "type", "vrf"], "", "Error: Unknown device type.", "devices of type vrf"),
    (["ip", "-batch", "-"], "link add x type ipip ttl 1", "RTNETLINK answers: Operation not supported",
     "support for 'link add x type ipip ttl 1'"),
    (["ip", "route", "add"], "", "RTNETLINK answers: File exists", None),
    (["tc", "qdisc", "add"], "", "Error: Specified qdisc kind is unknown.", "'qdisc add'"),
    (["cat", "x"], "", "Operation not supported", None),
])
def test_a_tools_words_for_a_missing_feature_name_it(command, stdin, said, feature):
    assert unsupported.in_command(command, stdin, said) == feature


@pytest.fixture
def client():
    with netns.build(LAN) as network:
        yield network["client"]


def test_a_command_for_a_missing_feature_is_both_errors(client):
    """Who expects the command to fail still sees it; else the test is skipped."""
    for expected in (netns.MissingFeature, netns.CommandError):
        with pytest.raises(expected, match="the kernel has no devices of type nosuch"):
            client.run(["ip", "link", "add", "x", "type", "nosuch"])


def test_another_failure_is_none_of_a_feature(client):
    with pytest.raises(netns.CommandError) as failure:
        client.run(["ip", "link", "set", "nowhere", "up"])
    assert not isinstance(failure.value, netns.MissingFeature)


@pytest.mark.parametrize("attempt", [lambda host: host.sysctl("net.ipv4.nosuch"), lambda host: host.sysctl("net.ipv4.nosuch", 1),
                                     lambda host: host.pin({"net.ipv4.nosuch": 1})], ids=["read", "write", "pin"])
def test_a_missing_sysctl_is_named(client, attempt):
    for expected in (netns.MissingFeature, FileNotFoundError):
        with pytest.raises(expected) as failure:
            attempt(client)
        assert str(failure.value) == "the kernel has no sysctl net.ipv4.nosuch"
    assert failure.value.filename == "/proc/sys/net/ipv4/nosuch"


def test_a_missing_kind_of_socket_is_named(client):
    with pytest.raises(netns.MissingFeature, match="the kernel has no netlink family 31") as failure:
        client.socket(socket.AF_NETLINK, socket.SOCK_RAW, 31)
    assert failure.value.errno == errno.EPROTONOSUPPORT


def test_a_refusal_for_another_reason_stays_what_it_is(client):
    with pytest.raises(PermissionError) as failure, unsupported.in_request("something"):
        raise PermissionError(errno.EPERM, "no")
    assert not isinstance(failure.value, netns.MissingFeature)
