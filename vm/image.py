"""The boot image: one initramfs with the host's Python, the tools, and one kernel's modules.

All files are in memory: a guest that waits for a disk or a shared directory of the host is idle, and an idle guest's
clock jumps.  Files keep their absolute paths, so that a path means the same on both sides.
"""
import errno
import fnmatch
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import FetchError
from kernels import modules
from kernels.cache import Cache
from kernels.extract import Kernel

TOOLS = ["ip", "tc", "ss", "bridge", *(f"{family}tables-{flavour}{rest}" for family in ("ip", "ip6") for flavour in ("legacy", "nft")
                                       for rest in ("", "-restore")), "nft", "ipvsadm", "ipset", "conntrack", "tcpdump", "modprobe",
         "sh", "cat",
         "bash", "ls", "grep", "sleep", "ping", "ps"]         # for --shell
# Paths that the kernel and scripts expect; symbolic links if the host has links there.
FIXED = ["/bin/sh", "/sbin/modprobe", "/lib", "/lib64"]
DATA = ["/etc/protocols", "/etc/services", "/etc/iproute2", "/usr/share/iproute2", "/usr/lib/*/xtables", "/etc/ethertypes", "/lib/terminfo"]
# What no guest imports; by directory or file name.
STDLIB_LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "site-packages", "dist-packages",
                   "pydoc_data", "turtle.py", "venv", "distutils", "config-*", "*.opt-?.pyc", "_tkinter.*", "_test*", "_ctypes_test.*",
                   "xxlimited*", "*.a", "readline.*", "_dbm.*", "_gdbm.*", "nis.*"}
SITE_LEFT_OUT = {"pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth", "tests", "*.opt-?.pyc",
                 "rich", "markdown_it", "mdurl", "qemu", "jsonschema", "jsonschema_specifications", "referencing", "rpds",
                 "attr", "attrs", "capstone",        # for the host
                 "contrib", "tls", "msrpce", "windows", "tools", "modules"}     # of scapy
PRELOAD = ["pytest", "_pytest.*", "pluggy", "iniconfig", "execnet", "execnet.gateway_base", "xdist.plugin", "xdist.remote",
           "xdist.newhooks", "pytest_timeout", "packaging.version", "xdist.looponfail", "mmap", "faulthandler", "email.parser",
           "unittest.mock", "xml.etree.ElementTree", "difflib", "pdb", "logging.handlers",
           "pyroute2", "scapy.layers.l2", "scapy.layers.inet", "scapy.layers.inet6", "ctypes.util", "multiprocessing.pool"]
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "USER": "root",
               "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1",
               # Reading the metadata of all packages to find pytest's plugins takes a quarter of the time to the first test.
               "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist.plugin,pytest_timeout"}
DOCUMENTATION = tuple(f"/usr/share/{name}/" for name in ("doc", "man", "info", "locale", "lintian", "bash-completion", "bug"))
LIBRARY = re.compile(r"^\t(?:.* => )?(/.*) \(0x[0-9a-f]+\)$", re.MULTILINE)        # a line of ldd(1)
GUEST = Path(__file__).with_name("guest.py")
BESIDE = {f"kdrift_{name}.py": Path(__file__).with_name(f"{name}.py") for name in ("look", "processor", "inlet")}     # for process 1
INIT = "/kdrift-init.py"
ACCOUNTS = ("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
            "tcpdump:x:100:65534:tcpdump:/:/bin/sh\n")


class ImageError(Exception):
    """The boot image cannot be built; the message names what is missing or broken."""


@dataclass(frozen=True)
class Userland:
    """What a boot image has besides a kernel's modules.  `tools` are programs of this machine, by name."""

    name: str
    tools: tuple[str, ...]
    preload: tuple[str, ...]                # modules that are imported before the state is saved
    packages: tuple[str, ...] = ()          # of Debian, whose files it has all but documentation
    python: bool = True                     # whether it has the virtual environment's packages, else Python alone, as python3
    beside: Mapping[str, Path] = field(default_factory=lambda: BESIDE)
    etc: Mapping[str, str] = field(default_factory=lambda: {"passwd": ACCOUNTS})
    environment: Mapping[str, str] = field(default_factory=lambda: ENVIRONMENT)


SUITE = Userland("userland", tuple(TOOLS), tuple(PRELOAD))


def tool(name: str) -> str | None:
    return shutil.which(name, path=ENVIRONMENT["PATH"])


def python_command() -> str:
    """The guest's interpreter: the virtual environment's own, at its own path."""
    return os.path.join(sys.prefix, "bin", "python3")


def build_userland(target: Path, userland: Userland = SUITE) -> None:
    """Write `userland.cpio`: Python, the virtual environment and the tools with their libraries; and `names`, what is in it."""
    paths = with_links(_userland_files(userland))
    cpio(target / "userland.cpio", Path("/"), paths)
    (target / "names").write_text("\n".join(paths))


def userland_key(userland: Userland = SUITE) -> str:
    """A key that changes when a packed file changes (by path, size and modification time; of packages, by version)."""
    sources = (GUEST, *userland.beside.values(), Path(__file__), Path(modules.__file__))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    digest.update(python_command().encode())        # each checkout has its own, and it is process 1
    digest.update(repr((userland.packages, userland.etc, userland.preload)).encode() if userland.packages else b"")
    for path in sorted(_roots(userland)):
        status = os.stat(path)
        digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    if userland.packages:
        digest.update(_dpkg("-W", *userland.packages).encode())
    return digest.hexdigest()[:16]


def build_image(target: Path, kernel: Kernel, place: Path, userland: Userland = SUITE) -> None:
    """Write `initrd` for one kernel: the userland in `place`, its modules, its settings and process 1."""
    stage = target / "stage"
    stage_modules(stage, kernel)
    (stage / "etc").mkdir(parents=True, exist_ok=True)
    settings = {"env": userland.environment, "preload": userland.preload, "command": userland is not SUITE}
    (stage / "etc/kdrift.json").write_text(json.dumps(settings))
    for name, text in userland.etc.items():
        (stage / "etc" / name).write_text(text)
    if not userland.python and (python := os.path.realpath(sys.executable)) != "/usr/bin/python3":
        (stage / "usr/bin").mkdir(parents=True, exist_ok=True)
        (stage / "usr/bin/python3").symlink_to(python)
    shutil.copy(GUEST, stage / INIT.lstrip("/"))
    for name, source in userland.beside.items():
        shutil.copy(source, stage / name)
    for directory in ("proc", "sys", "dev", "tmp", "run", "root", "sbin"):
        if not os.path.islink(f"/{directory}"):
            (stage / directory).mkdir(exist_ok=True)
    paths = [os.path.relpath(os.path.join(top, name), stage) for top, directories, files in os.walk(stage) for name in directories + files]
    cpio(target / "kernel.cpio", stage, paths)
    join(target / "initrd", place / "userland.cpio", target / "kernel.cpio")
    (target / "kernel.cpio").unlink()
    shutil.rmtree(stage)


def packed_userland(cache: Cache, userland: Userland) -> Path:
    """The directory with `userland.cpio` and `names`, cached or newly made.  Raises ImageError."""
    return cache.build("images", f"{userland.name}-{userland_key(userland)}", lambda target: build_userland(target, userland),
                       {"group": f"{userland.name} {sys.prefix}"})


def boot_image(cache: Cache, kernel: Kernel, building: Callable[[], object] = lambda: None, userland: Userland = SUITE) -> Path:
    """The initramfs of a kernel, cached or newly built.  Raises ImageError."""
    def build(target: Path) -> None:
        building()
        build_image(target, kernel, packed_userland(cache, userland), userland)

    of_wide = "" if userland is SUITE else f" {userland.name}"
    facts = {"kernel": kernel.key, "group": f"{kernel.key} {sys.prefix}{of_wide}"}
    return cache.build("images", f"{kernel.key}-{userland_key(userland)}", build, facts) / "initrd"


def _roots(userland: Userland) -> list[str]:
    """The files and directories that make up the userland, few enough to check at every start."""
    site = sysconfig.get_path("purelib")
    found = [path for name in userland.tools if (path := tool(name))]
    if userland.python:
        found += [site] + [os.path.join(site, name) for name in os.listdir(site)]
    return found + [os.path.realpath(sys.executable)] + [path for pattern in DATA for path in glob.glob(pattern)]


def _userland_files(userland: Userland) -> list[str]:
    stdlib = sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix})
    files = [python_command(), os.path.realpath(sys.executable), os.path.join(sys.prefix, "pyvenv.cfg")]
    files += tree(stdlib, STDLIB_LEFT_OUT) + (tree(sysconfig.get_path("purelib"), SITE_LEFT_OUT) if userland.python else [])
    files += [path for pattern in DATA for place in glob.glob(pattern) for path in tree(place, set())]
    files += [path for name in userland.tools if (path := tool(name))]
    if userland.packages:
        files += [path for path in _dpkg("-L", *userland.packages).splitlines() if _is_of_use(path)]
    binaries = [path for path in files if is_elf(path)]
    return files + libraries(binaries) + [path for path in FIXED if os.path.exists(path)]


def _dpkg(*words: str) -> str:
    """What dpkg-query(1) says of installed packages.  Raises ImageError if one is not installed."""
    done = subprocess.run(["dpkg-query", *words], capture_output=True, text=True)
    if done.returncode:
        raise ImageError(f"dpkg-query: {done.stderr.strip().splitlines()[0]}")
    return done.stdout


def _is_of_use(path: str) -> bool:
    """Whether a package's file is wanted: not its documentation, nor a file that was removed or is secret."""
    return not path.startswith(DOCUMENTATION) and os.path.isfile(path) and os.access(path, os.R_OK)


def tree(top: str, left_out: set[str]) -> list[str]:
    if not os.path.isdir(top):
        return [top]
    unwanted = re.compile("|".join(map(fnmatch.translate, left_out)) or "(?!)")
    found = []
    for directory, names, files in os.walk(top):
        names[:] = [name for name in names if not unwanted.match(name)]
        found += [os.path.join(directory, name) for name in files if not unwanted.match(name)]
    return found


def is_elf(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def libraries(binaries: list[str]) -> list[str]:
    listing = subprocess.run(["ldd", *binaries], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}).stdout
    missing = sorted({line.split()[0] for line in listing.splitlines() if "=> not found" in line})
    if missing:
        raise ImageError(f"missing shared libraries: {', '.join(missing)}")
    return sorted(set(LIBRARY.findall(listing)))


def with_links(files: list[str]) -> list[str]:
    """The files, and every directory and symbolic link on the way to them, parents first; without the leading slash."""
    seen: dict[str, None] = {}

    def add(path: str) -> None:
        if path in seen or path == "/":
            return
        add(os.path.dirname(path))
        seen[path] = None

    for path in files:
        for step in _resolved_steps(path):
            add(step)
    return [path.lstrip("/") for path in seen]


def _resolved_steps(path: str) -> list[str]:
    """The symbolic links on the way to a path, followed one at a time, and the path that they lead to."""
    steps = []
    while True:
        parts, current = path.split("/"), ""
        for index, part in enumerate(parts[1:], 2):
            current += "/" + part
            if os.path.islink(current):
                steps.append(current)
                target = os.path.normpath(os.path.join(os.path.dirname(current), os.readlink(current)))
                path = "/".join([target, *parts[index:]])
                break
        else:
            return steps + [path]


def stage_modules(stage: Path, kernel: Kernel) -> None:
    """Copy the modules that tests may need to where a machine below `stage` looks for them.  Raises ImageError."""
    root = stage / os.path.realpath("/lib").lstrip("/")     # the target of the userland's link /lib
    try:
        modules.stage(root.parent, kernel)
    except FetchError as error:
        raise ImageError(str(error)) from None


def join(target: Path, *archives: Path) -> None:
    """Concatenate archives into one initramfs: the kernel unpacks them in turn (initramfs-buffer-format.rst)."""
    with open(target, "wb") as out:
        for archive in archives:
            with open(archive, "rb") as source:
                shutil.copyfileobj(source, out, 1 << 20)


def cpio(target: Path, top: Path, paths: list[str]) -> None:
    """Write these paths below `top` in the format that the kernel unpacks.  Raises ImageError; OSError if the disk is full."""
    program = shutil.which("cpio")
    if program is None:
        raise ImageError("cpio is not installed (Debian package: cpio)")
    with open(target, "wb") as out:
        run = subprocess.run([program, "-o", "-H", "newc", "-R", "0:0", "--null", "--quiet"], cwd=top, stdout=out,
                             stderr=subprocess.PIPE, input="\0".join(paths).encode())
    if run.returncode and b"No space left" in run.stderr:
        raise OSError(errno.ENOSPC, "cpio", str(target))        # the cache adds advice to it
    if run.returncode:
        raise ImageError(f"cpio failed: {run.stderr.decode().strip().splitlines()[-1]}")
