"""A Debian archive of a few small kernel packages, signed with a key of its own, and a server that can misbehave."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import os
import random
import re
import shutil
import socketserver
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from pathlib import Path

import pytest

from kernels.cache import Cache

SUITE = "bookworm"
FILLER = f"Package: {{name}}\nVersion: 1\nArchitecture: amd64\nDescription: {'x' * 1000}\nFilename: none\nSize: 1\nSHA256: {'0' * 64}\n\n"
MODULES = "Package: net-modules-{release}-di\nSource: linux\nVersion: {version}\nArchitecture: amd64\nKernel-Version: {release}\n\n"


def write_image(path: Path, release: str, size: int = 65536, seed: int = 0) -> Path:
    """A file with the header of a bzImage (Documentation/arch/x86/boot.rst), nothing that runs."""
    image = bytearray(random.Random(seed).randbytes(size))
    image[0x1F1] = 3
    struct.pack_into("<I", image, 0x1F4, (size - 4 * 512) // 16)
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x300)
    text = f"{release} (builder@example) #1 SMP\0".encode()
    image[0x500:0x500 + len(text)] = text
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image)
    return path


def write_modules(root: Path, release: str) -> Path:
    """A modules directory as a package brings it: depmod has not run."""
    modules = root / "lib/modules" / release
    (modules / "kernel/net").mkdir(parents=True)
    (modules / "kernel/net/empty.txt").write_text("no module, but a file\n")
    (modules / "modules.order").write_text("")
    (modules / "modules.builtin").write_text("")
    return modules


def write_deb(directory: Path, name: str, version: str, root: Path, depends: str = "", architecture: str = "amd64") -> Path:
    """A .deb of the tree `root`."""
    control = root / "DEBIAN/control"
    control.parent.mkdir(parents=True)
    control.write_text(f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: kdrift <nobody@example>\n"
                       + (f"Depends: {depends}\n" if depends else "") + "Description: a package for tests\n")
    path = directory / f"{name}_{version}_{architecture}.deb"
    path.parent.mkdir(parents=True, exist_ok=True)
    build = ["dpkg-deb", "-Znone", "--root-owner-group", "--build", root, path]
    subprocess.run(build, check=True, capture_output=True)
    return path


def configure(tmp_path, monkeypatch, sources: str) -> None:
    """Have apt look for its sources in a list of the test's own."""
    (tmp_path / "sources.list").write_text(sources)
    (tmp_path / "parts").mkdir(exist_ok=True)
    (tmp_path / "apt.conf").write_text(f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\n'
                                       f'Dir::Etc::sourceparts "{tmp_path}/parts";\n')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.delenv("KDRIFT_MIRROR", raising=False)


@contextlib.contextmanager
def new_archive(directory: Path) -> Iterator["DebianArchive"]:
    """An empty archive. The test is skipped where nothing can be signed."""
    if not shutil.which("gpg"):
        pytest.skip("gpg (package gpg) is needed to sign an archive for the test")
    with contextlib.closing(DebianArchive(directory)) as archive:
        yield archive


@contextlib.contextmanager
def own_cache(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cache]:
    """An empty cache, which says nothing."""
    monkeypatch.setenv("KDRIFT_CACHE", str(directory / "cache"))
    with Cache(say=lambda line: None) as cache:
        yield cache


class DebianArchive:
    """The archive in a directory, and what the server does instead of serving properly, in `mood`.

    Moods: "well", "silent" (accepts and never answers), "slow" (packages and lists trickle), "short" (packages end early),
    "other" (packages of the same size with other contents). `resumed` has the name and the first byte of what was not sent
    from the beginning.
    """

    def __init__(self, root: Path):
        self.root, self.mood, self.requests, self.resumed = root, "well", [], []
        self.pool = root / "debian/pool"
        self._second = int(time.time()) - 10000
        self.gnupg = root / "gnupg"
        self.gnupg.mkdir(mode=0o700)
        self._gpg("--quick-gen-key", "kdrift tests", "ed25519", "sign", "never")
        self.keyring = root / "keyring.gpg"
        self.keyring.write_bytes(self._gpg("--export"))

    def add_kernel(self, release: str, version: str, size: int = 65536) -> str:
        """A linux-image package with image and modules; returns its name."""
        name = f"linux-image-{release}"
        tree = self.root / "trees" / name
        write_image(tree / f"boot/vmlinuz-{release}", release, size)
        write_modules(tree, release)
        write_deb(self.pool, name, version, tree)
        return name

    def add_split_kernel(self, release: str, version: str) -> str:
        """A kernel of 6.19 or later: linux-image depends on linux-binary and linux-modules; returns its name."""
        trees = self.root / "trees"
        write_image(trees / f"binary-{release}/usr/lib/modules/{release}/vmlinuz", release)
        write_modules(trees / f"modules-{release}/usr", release)
        (trees / f"image-{release}").mkdir(parents=True)
        write_deb(self.pool, f"linux-binary-{release}", version, trees / f"binary-{release}")
        write_deb(self.pool, f"linux-modules-{release}", version, trees / f"modules-{release}")
        depends = f"linux-base, linux-binary-{release} (= {version}), linux-modules-{release} (= {version})"
        write_deb(self.pool, f"linux-image-{release}", version, trees / f"image-{release}", depends)
        return f"linux-image-{release}"

    def add_package(self, name: str, depends: str = "") -> None:
        """A package that is no kernel."""
        tree = self.root / "trees" / name
        tree.mkdir(parents=True)
        write_deb(self.pool, name, "1.0", tree, depends)

    def publish(self, suite: str = SUITE, packages: str = "*", installer: Sequence[tuple[str, str]] = (), fillers: int = 0,
                moved: str = "pool") -> None:
        """Write and sign the index of a suite: what in the pool has a name like `packages`, and `fillers` packages that are not there.

        `installer`: release and version of the kernels that the installer's list names; without any there is no such list.
        `moved`: the directory where the list says that the packages are.
        """
        directory = self.root / "debian/dists" / suite
        stanzas = [self._stanza(deb, moved) for deb in sorted(self.pool.glob(f"{packages}.deb"))]
        stanzas += [FILLER.format(name=f"filler-{number}") for number in range(fillers)]
        lists = {"main/binary-amd64/Packages": "".join(stanzas)}
        if installer:
            lists["main/debian-installer/binary-amd64/Packages"] = "".join(
                MODULES.format(release=release, version=version) for release, version in installer)
        if (old := directory / "main/binary-amd64/Packages").exists():
            lists |= self._patch(old, "".join(stanzas))
        entries = ""
        for name, text in lists.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(text)
            entries += f" {hashlib.sha256(text.encode()).hexdigest()} {len(text)} {name}\n"
        (directory / "Release").write_text(
            f"Origin: kdrift\nSuite: {suite}\nCodename: {suite}\nArchitectures: amd64\nComponents: main\n"
            f"Date: {formatdate(usegmt=True)}\nSHA256:\n{entries}")
        (directory / "InRelease").unlink(missing_ok=True)
        self._gpg("--clearsign", "-o", str(directory / "InRelease"), str(directory / "Release"))
        (directory / "Release").unlink()
        # Each in a second of its own: a client asks for what was modified since the second of its copy.
        self._second += 1
        os.utime(directory / "InRelease", (self._second, self._second))

    @contextlib.contextmanager
    def serve(self) -> Iterator[str]:
        """Serve on the loopback interface; yields the address for a sources list."""
        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads, block_on_close, archive = True, False, self

            def handle_error(self, _request, _address) -> None:
                """A client that was killed is part of the tests."""

        with Server(("127.0.0.1", 0), functools.partial(_Handler, directory=str(self.root))) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/debian"
            finally:
                self.mood = "closed"
                server.shutdown()
                thread.join()

    def armoured_key(self) -> str:
        """The public key in the form that a sources list can hold."""
        return self._gpg("--armor", "--export").decode()

    def close(self) -> None:
        """End the agent that gpg has started for the key."""
        subprocess.run(["gpgconf", "--kill", "all"], env={**os.environ, "GNUPGHOME": str(self.gnupg)}, check=True)

    def _stanza(self, deb: Path, directory: str) -> str:
        control = subprocess.run(["dpkg-deb", "-f", deb], check=True, capture_output=True, text=True).stdout
        return (f"{control.strip()}\nFilename: {directory}/{deb.name}\nSize: {deb.stat().st_size}\n"
                f"SHA256: {hashlib.sha256(deb.read_bytes()).hexdigest()}\n\n")

    def _patch(self, old: Path, new: str) -> dict[str, str]:
        """Write the difference to the published list; returns the index of differences, by its name."""
        patch = subprocess.run(["diff", "--ed", old, "-"], input=new, capture_output=True, text=True).stdout.encode()
        old.with_name("Packages.diff").mkdir(exist_ok=True)
        old.with_name("Packages.diff").joinpath("1.gz").write_bytes(gzip.compress(patch))
        sums = [f"{hashlib.sha256(data).hexdigest()} {len(data)}" for data in (new.encode(), old.read_bytes(), patch, gzip.compress(patch))]
        return {"main/binary-amd64/Packages.diff/Index": f"SHA256-Current: {sums[0]}\nSHA256-History:\n {sums[1]} 1\n"
                f"SHA256-Patches:\n {sums[2]} 1\nSHA256-Download:\n {sums[3]} 1.gz\n"}

    def _gpg(self, *arguments: str) -> bytes:
        line = ["gpg", "--homedir", str(self.gnupg), "--batch", "--quiet", "--passphrase", "", *arguments]
        return subprocess.run(line, check=True, stdout=subprocess.PIPE).stdout


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        archive = self.server.archive
        archive.requests.append(self.path)
        while archive.mood == "silent":
            time.sleep(0.05)
        super().do_GET()

    def send_head(self):
        """As a real mirror: the rest of a file, if the client has the beginning of this version of it."""
        path = Path(self.translate_path(self.path))
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not start or not path.is_file() or self.headers["If-Range"] != self.date_time_string(path.stat().st_mtime):
            return super().send_head()
        first, size = int(start[1]), path.stat().st_size
        if first >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        self.server.archive.resumed.append((path.name, first))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - first))
        self.send_header("Last-Modified", self.headers["If-Range"])
        self.end_headers()
        file = path.open("rb")
        file.seek(first)
        return file

    def copyfile(self, source, outputfile) -> None:
        archive, data = self.server.archive, source.read()
        package = self.path.endswith(".deb")
        if package and archive.mood == "other":
            data = bytes(len(data))
        if package and archive.mood == "short":
            outputfile.write(data[:len(data) // 2])
            self.close_connection = True
            return
        step = 65536
        for start in range(0, len(data), step):
            outputfile.write(data[start:start + step])
            if archive.mood == "slow":
                time.sleep(0.05)

    def log_message(self, *_arguments) -> None:
        pass
