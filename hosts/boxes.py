"""`python -m hosts.boxes [DIRECTORY]`: build Vagrant boxes of Debian 12 and 13 for libvirt from Debian's packages.

Needs root, mmdebstrap and qemu-img.  A box has its kernel and initramfs beside the disk, and libvirt boots them as the box's
Vagrantfile says. So the disk needs no boot loader and no partitions: mke2fs fills it without a loop device.
"""
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from common.errors import FetchError
from kernels.cache import Cache
from kernels.sources import archives

RELEASES = {"debian12": "bookworm", "debian13": "trixie"}
PACKAGES = ["linux-image-cloud-amd64", "initramfs-tools", "systemd-sysv", "udev", "openssh-server", "sudo", "python3", "iproute2",
            "iptables", "nftables", "ipvsadm", "ipset", "conntrack", "tcpdump", "kmod"]
TOOLS = ["mmdebstrap", "mke2fs", "qemu-img", "unshare"]
DISK_MB = 3000
FILES = {
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
    "etc/systemd/network/any.network": "[Match]\nName=e*\n[Network]\nDHCP=ipv4\n",
    "etc/sudoers.d/vagrant": "vagrant ALL=(ALL) NOPASSWD: ALL\n",
    "etc/ssh/sshd_config.d/vagrant.conf": "UseDNS no\n",
}
COMMANDS = ["useradd --create-home --shell /bin/sh vagrant", "systemctl enable systemd-networkd ssh",
            # Services that a short-lived virtual machine does not need, and that cost time under emulation.
            "systemctl disable apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer "
            "e2scrub_reap.service",
            "systemctl mask systemd-networkd-wait-online.service"]
COMMAND_LINE = "root=/dev/vda ro console=ttyS0 net.ifnames=0"
VAGRANTFILE = f"""\
Vagrant.configure("2") do |config|
  config.ssh.insert_key = false
  config.vm.guest = :debian                # finding that out takes dozens of commands over ssh
  config.vm.provider :libvirt do |libvirt|
    libvirt.kernel = File.expand_path("../vmlinuz", __FILE__)
    libvirt.initrd = File.expand_path("../initrd", __FILE__)
    libvirt.cmd_line = "{COMMAND_LINE}"
  end
end
"""


class BoxError(Exception):
    """A tool failed; the message says which in one line."""


def cached(cache: Cache, name: str) -> Path:
    """A box from the cache, or built now."""
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    return cache.build("images", f"box-{name}-{key}", lambda target: build(name, target), {"group": f"box {name}"}) / f"{name}.box"


def build(name: str, directory: Path) -> None:
    """Write `NAME.box` into `directory`.  Raises BoxError, FetchError; the tools' complaints go to standard error."""
    with tempfile.TemporaryDirectory(prefix="box-", dir=directory) as scratch:
        root, box = Path(scratch, "root"), Path(scratch, "box")
        box.mkdir()
        install(RELEASES[name], root)
        settle(root, name)
        for file, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
            (found,) = root.glob(f"boot/{pattern}")
            shutil.move(found, box / file)
        run("mke2fs", "-q", "-t", "ext4", "-d", root, Path(scratch, "disk"), f"{DISK_MB}M")
        run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", Path(scratch, "disk"), box / "box.img")
        (box / "metadata.json").write_text(json.dumps({"provider": "libvirt", "format": "qcow2", "virtual_size": -(-DISK_MB // 1000)}))
        (box / "Vagrantfile").write_text(VAGRANTFILE)
        with tarfile.open(Path(scratch, "whole.box"), "w") as tar:
            for path in sorted(box.iterdir()):
                tar.add(path, path.name)
        Path(scratch, "whole.box").rename(directory / f"{name}.box")


def install(suite: str, root: Path) -> None:
    """Install a minimal system of this suite with PACKAGES, from the Debian archives that this machine's apt uses."""
    found = archives()
    stanzas = [found[each].stanza(each) for each in (suite, f"{suite}-security") if each in found]
    settings = ["force-unsafe-io", *(f"path-exclude=/usr/share/{path}/*" for path in ("doc", "man", "info", "locale"))]
    # In private namespaces: mounts and processes end with it, even if it is killed.
    private = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    options = ["--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", *(f"--dpkgopt={each}" for each in settings)]
    run(*private, "mmdebstrap", *options, suite, root, "-", text="\n".join(stanzas).encode())


def settle(root: Path, name: str) -> None:
    """What Vagrant expects: the user vagrant with its well-known key, sudo, ssh and an address by DHCP."""
    for path, text in {**FILES, "etc/hostname": name + "\n"}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    for command in COMMANDS:
        run("chroot", root, "sh", "-c", command)
    keys = root / "home/vagrant/.ssh/authorized_keys"
    keys.parent.mkdir(mode=0o700)
    (key,) = Path("/usr/share/rubygems-integration").glob("all/gems/vagrant-2*/keys/vagrant.pub")
    shutil.copy(key, keys)
    run("chroot", root, "chown", "-R", "vagrant:", "/home/vagrant/.ssh")


def run(*words: str | Path, text: bytes | None = None) -> None:
    done = subprocess.run([str(word) for word in words], input=text, stdout=subprocess.DEVNULL)
    if done.returncode:
        tool = next((word for word in words if word in TOOLS and word != "unshare"), words[0])
        raise BoxError(f"{tool} failed with status {done.returncode}, for the reason above")


def main(target: Path) -> int:
    needs = {"root": os.geteuid() == 0, ", ".join(TOOLS): all(map(shutil.which, TOOLS)), f"a directory {target}": target.is_dir()}
    if missing := [need for need, met in needs.items() if not met]:
        print(f"hosts.boxes: needs {missing[0]}", file=sys.stderr)
        return 2
    try:
        for each in RELEASES:
            build(each, target)
            print(target / f"{each}.box", flush=True)
    except (BoxError, FetchError, OSError) as error:
        print(f"hosts.boxes: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
