"""An initramfs that boots a whole machine with a kernel that is not installed on it.

It mounts the machine's root, and a tmpfs with the kernel's modules over its /lib/modules: those on the disk stay as they are.
"""
import hashlib
import os
import shutil
from pathlib import Path

from kernels import modules
from kernels.cache import Cache
from kernels.extract import Kernel
from vm.image import FIXED, ImageError, cpio, join, libraries, tool, with_links

TOOLS = ["sh", "mount", "modprobe", "mkdir", "cp", "cat", "sleep", "switch_root"]
INIT = """\
#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p /proc /sys /dev /run /machine
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o mode=755 tmpfs /run
for word in $(cat /proc/cmdline); do
  case $word in root=*) root=${word#root=};; rootflags=*) flags=${word#rootflags=};; rootfstype=*) type=${word#rootfstype=};; esac
done
for module in virtio_pci virtio_blk virtio_scsi sd_mod ahci ata_piix ext4 xfs btrfs; do modprobe -q $module; done
until [ -b "$root" ]; do sleep 0.1; done
mount -o "rw${flags:+,$flags}" -t "${type:-auto}" "$root" /machine || mount -o rw -t ext4 "$root" /machine
mount -t tmpfs -o mode=755 modules /machine/lib/modules
cp -a /lib/modules/. /machine/lib/modules/
exec switch_root /machine /sbin/init
"""


def machine_initramfs(cache: Cache, kernel: Kernel) -> Path:
    """The initramfs, from the cache or built now.  Raises ImageError."""
    key = f"machine-{kernel.key}-{hashlib.sha256(INIT.encode()).hexdigest()[:8]}"
    entry = cache.build("images", key, lambda target: _build(target, kernel), {"kernel": kernel.key, "group": f"machine {kernel.key}"})
    return entry / "initrd"


def _build(target: Path, kernel: Kernel) -> None:
    tools = [found for name in TOOLS if (found := tool(name))]
    if len(tools) < len(TOOLS):
        raise ImageError(f"missing tools for booting a machine: {', '.join(name for name in TOOLS if not tool(name))}")
    cpio(target / "tools.cpio", Path("/"), with_links([*tools, *libraries(tools), *FIXED]))
    stage = target / "stage"
    library = stage / os.path.realpath("/lib").lstrip("/")
    if kernel.modules and modules.are_installed(kernel.modules):
        shutil.copytree(kernel.modules, library / "modules" / kernel.release, symlinks=True)
    elif kernel.modules:
        modules.stage(library.parent, kernel, modules.files(kernel.modules))
    stage.mkdir(exist_ok=True)
    (stage / "init").write_text(INIT)
    (stage / "init").chmod(0o755)
    cpio(target / "kernel.cpio", stage, [str(path.relative_to(stage)) for path in sorted(stage.rglob("*"))])
    archives = target / "tools.cpio", target / "kernel.cpio"
    join(target / "initrd", *archives)
    for archive in archives:
        archive.unlink()
    shutil.rmtree(stage)
