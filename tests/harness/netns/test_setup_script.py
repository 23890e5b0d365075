"""setup.sh of an exported case builds what the case itself builds."""

import fcntl
import json
import os
import re
import subprocess
import sys

import pytest

import netns
from fixtures.topologies import DIRECTED, FORK, NARROW
from netns.hosts import pinned
from reproduce.collect import Manifest
from reproduce.pack import write

TESTS = {"DIRECTED": DIRECTED, "FORK": FORK, "NARROW": NARROW}


@pytest.fixture
def built(tmp_path):
    """built(name of a topology): the script that the runner records, run in these private namespaces."""
    scripts = []

    def build(name: str) -> str:
        own = {"table": [("tests.harness.netns.exported", "table")]} if name == "RULE" else {}
        case = Manifest(id=f"the topology {name}", module="tests.harness.netns.exported", function=f"test_{name.lower()}", promise="",
                        order=["net", *own], fixtures={"net": [("fixtures.net", "net")], **own},
                        modules=["tests.harness.netns.exported", "fixtures.net"])
        write(tmp_path / "repro.pyz", [case])
        script = tmp_path / "setup.sh"
        subprocess.run([sys.executable, "-I", tmp_path / "repro.pyz", "--setup", script], check=True, capture_output=True)
        printed = subprocess.run([sys.executable, "-I", tmp_path / "repro.pyz", "--setup", "-"], check=True, capture_output=True, text=True)
        assert printed.stdout.endswith(f"\n{script.read_text()}-- the end of setup.sh\n")
        subprocess.run(["sh", script], check=True, capture_output=True, text=True)
        scripts.append(script)
        return script.read_text()

    # The script gives its hosts names, which the workers of a run share.
    with open("/run/kdrift-names.lock", "w") as names:
        fcntl.flock(names, fcntl.LOCK_EX)
        yield build
        for script in scripts:
            subprocess.run(["sh", script, "down"], check=True)
            assert os.listdir("/run/netns") == []


@pytest.mark.parametrize("name", TESTS)
def test_script_builds_the_same_links_addresses_and_routes(built, name):
    built(name)
    with netns.build(TESTS[name]) as network:
        for role, host in network.hosts.items():
            for question in (["address"], ["-4", "route", "show", "table", "all"], ["-6", "route", "show", "table", "all"]):
                there = subprocess.run(["ip", "-n", role, "-j", *question], capture_output=True, text=True, check=True).stdout
                assert facts(there) == facts(host.run(["ip", "-j", *question]))


def test_script_gives_its_hosts_the_settings_that_build_pins(built):
    """Where a new namespace has others, as those of an unusual machine do."""
    script = built("NARROW")
    wanted = {name: value for name, value in pinned.NAMESPACE.items() if name.startswith(("net.ipv4.conf.all.", "net.ipv4.conf.default."))}
    other = [f"{name}={1 - int(value)}" for name, value in wanted.items() if value in ("0", "1")]
    assert "\nusual client\n" in script and len(other) > 40

    in_client("sysctl", "-qw", *other)
    assert in_client("sysctl", "-n", *wanted) != list(wanted.values())
    function = re.search(r"^usual\(\) {.*?^}$", script, re.MULTILINE | re.DOTALL)[0]
    subprocess.run(["sh", "-ec", f"{function}\nusual client"], check=True)
    assert in_client("sysctl", "-n", *wanted) == list(wanted.values())


def in_client(*command):
    return subprocess.run(["ip", "netns", "exec", "client", *command], check=True, capture_output=True, text=True).stdout.split()


def test_each_command_is_explained(built):
    body = built("NARROW").partition("\nfi\n")[2].split("\n\n")
    assert len(body) > 15
    for block in filter(str.strip, body):
        comment, command, *more = block.strip().splitlines()
        assert comment.startswith("# ") and not command.startswith("#") and not more


def test_rules_of_nftables_are_written_down_and_questions_are_not(built):
    script = built("RULE")
    assert "\nip netns exec router nft -f - <<'END'\nadd table inet one\nEND\n" in script
    assert script.count(" nft ") == 1


def facts(listing: str) -> list:
    """What `ip -j` says, without numbers that the kernel chose."""
    chosen = ("ifindex", "link_index", "link_netnsid", "link_netns", "valid_life_time", "preferred_life_time", "expires", "flags",
              "stable_privacy")
    return sorted((json.dumps(without(each, chosen), sort_keys=True) for each in json.loads(listing or "[]")
                   if each.get("type") != "multicast"))


def without(value: object, names: tuple[str, ...]) -> object:
    if isinstance(value, dict):
        return {name: without(each, names) for name, each in value.items() if name not in names}
    if isinstance(value, list):
        return sorted((without(each, names) for each in value), key=str)
    return value
