"""The wide boot image, for commands that know nothing of kdrift: what a script finds on an ordinary Debian.

Its programs are this machine's, whole packages of them; Python has its standard library alone.
"""
from pathlib import Path

from common.project import PROJECT
from vm.image import BESIDE, ENVIRONMENT, SUITE, TOOLS, Userland

PACKAGES = ("arping", "base-files", "bash", "bc", "bridge-utils", "bsdextrautils", "bsdutils", "coreutils", "dash", "debianutils",
            "diffutils", "ethtool", "file", "findutils", "gawk", "grep", "gzip", "hostname", "iproute2", "iptables", "iputils-ping",
            "iputils-tracepath", "jq", "kmod", "less", "login", "mount", "net-tools", "netcat-openbsd", "nftables", "passwd", "perl-base",
            "procps", "psmisc", "sed", "socat", "tar", "tcpdump", "traceroute", "util-linux", "xz-utils")
# Known by a name that is a link elsewhere (update-alternatives(1)).
LINKS = ("awk", "nc", "traceroute", "traceroute6", "which", "pager",
         *(f"{family}tables{rest}" for family in ("ip", "ip6", "arp", "eb") for rest in ("", "-save", "-restore")))
ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
              "tcpdump:x:100:65534:tcpdump:/:/usr/sbin/nologin\nuser:x:1000:1000:user:/home/user:/bin/bash\n"
              "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\ndaemon:x:1:\ntty:x:5:\nuser:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1\tlocalhost\n127.0.1.1\tkdrift\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "hostname": "kdrift\n",
    "host.conf": "multi on\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nnetworks: files\nprotocols: files\nservices: files\nethers: files\n",
    "resolv.conf": "",                      # there is nobody to ask
    "shells": "/bin/sh\n/bin/bash\n",
    "profile": "PS1='\\u@\\h:\\w\\$ '\n",
    "environment": "",
}
PRELOAD = ("kdrift_command", "kdrift_console", "mmap", "queue", "subprocess")
WIDE = Userland("wide", (*TOOLS, *LINKS), PRELOAD, PACKAGES, python=False, etc=ETC,
                beside={**BESIDE, "kdrift_command.py": Path(__file__).with_name("command.py"),
                        "kdrift_console.py": PROJECT / "fixtures/console.py"},
                environment={name: value for name, value in ENVIRONMENT.items() if not name.startswith("PYTEST_")})
USERLANDS = {each.name: each for each in (SUITE, WIDE)}
