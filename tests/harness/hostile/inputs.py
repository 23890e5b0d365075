"""Hostile and broken files, made by code: by name, what makes one in a directory."""

import gzip
import io
import json
import lzma
import random
import tarfile
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from report.results import KernelResult, TestResult
from tests.harness.debian_archive import write_image

RUN = {"started": "2026-01-01T00:00:00+00:00", "duration_s": 1.0, "arguments": [], "python": "3", "exit_status": 0}
HTML = "<script>alert(1)</script>"
ESCAPES = "\x1b[2J\x1b]0;title\x07"
SECRET = b"what only the host may read"
MANY = 1_000_000
RELEASE = "6.12.0-1-amd64"
MODULES = f"lib/modules/{RELEASE}"


def results(*tests, **kernel):
    """results.json of one kernel."""
    found = KernelResult(**{"spec": "6.12", "label": "6.12", "release": "6.12.1", "version": "6.12.1-1", "tests": list(tests), **kernel})
    return json.dumps({"schema": 3, "run": RUN, "kernels": [asdict(found)]}).encode()


def image(release=RELEASE):
    """The bytes of a small bzImage."""
    with TemporaryDirectory() as directory:
        return write_image(Path(directory, "bzImage"), release).read_bytes()


def member(name, data=b"", **traits):
    """An entry of a tar archive; `traits` are attributes of its TarInfo."""
    found = tarfile.TarInfo(name)
    found.size = len(data) if traits.get("type", tarfile.REGTYPE) == tarfile.REGTYPE else 0
    vars_of = {"mode": 0o644, **traits}
    for trait, value in vars_of.items():
        setattr(found, trait, value)
    return found, data


def tar(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for found, data in members:
            archive.addfile(found, io.BytesIO(data))
    return file.getvalue()


def ar(*files):
    """An archive of ar(5), which a .deb is (deb(5))."""
    parts = [b"!<arch>\n"]
    for name, data in files:
        parts.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2))
    return b"".join(parts)


def deb(*members, package="linux-image-x", packed=lambda data: data, ending=""):
    """A .deb with an image and modules, and these members besides."""
    control = f"Package: {package}\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@example>\nDescription: x\n".encode()
    usual = [member(f"./boot/vmlinuz-{RELEASE}", image()), member(f"./{MODULES}/kernel/net/a.ko", b"no module"),
             member(f"./{MODULES}/modules.order")]
    return ar(("debian-binary", b"2.0\n"), ("control.tar", tar([member("./control", control)])),
              (f"data.tar{ending}", packed(tar([*usual, *members]))))


def link(name, target, hard=False):
    return member(name, type=tarfile.LNKTYPE if hard else tarfile.SYMTYPE, linkname=target)


def bomb(size=1 << 30):
    """A .deb of some kB whose one file has a GB of zeros."""
    packer, header = lzma.LZMACompressor(preset=0), member("./boot/zeros")[0]
    header.size = size
    chunk = bytes(1 << 20)
    data = [packer.compress(header.tobuf(tarfile.GNU_FORMAT))] + [packer.compress(chunk) for _ in range(size >> 20)] + [packer.flush()]
    control = b"Package: x\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@example>\nDescription: x\n"
    return ar(("debian-binary", b"2.0\n"), ("control.tar", tar([member("./control", control)])), ("data.tar.xz", b"".join(data)))


def flipped(data, seed):
    data, chance = bytearray(data), random.Random(seed)
    for _ in range(8):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


WHOLE = {
    "package.deb": lambda: deb(),
    "package.rpm": lambda: b"\xed\xab\xee\xdb\x03" + bytes(91) + b"\x8e\xad\xe8\x01" + bytes(200) + gzip.compress(b"070701" + bytes(300)),
    "bzImage": image,
    "results.json": lambda: results(TestResult("t.py::test_a")),
    "known_issues.toml": lambda: b'[[issue]]\nid = "a"\nsubject = "s"\ntests = ["t"]\nkernels = ["6.1.."]\ncommit = "0123456789ab"\n',
    "changes.toml": lambda: b'[[change]]\nid = "a"\nsentence = "s"\nkinds = ["more: tcp S"]\nkernels = ["6.1.."]\nunknown = "u"\n',
    "chance.json": lambda: b'{"made_from": ["6.1, 2 runs"], "moves": {"t.py::test_a": ["tcp S"]}}',
    "baseline.json": lambda: results(TestResult("t.py::test_a")),
}
DAMAGES = {
    "empty": lambda data: b"",
    "cut in the middle": lambda data: data[:len(data) // 2],
    "cut at the end": lambda data: data[:-40],
    "random": lambda data: random.Random(1).randbytes(3000),
    "zeros": lambda data: bytes(len(data)),
    "deep": lambda data: b"[" * 100_000,
    "flipped": lambda data: flipped(data, 1),
}
OUTSIDE = "../" * 12
# Packages that want out: every one is refused, or taken without what leads out. OUT stands for a directory beside the cache.
ESCAPING = {
    "..": lambda out: deb(member(f"{OUTSIDE}{out}/written", b"x")),
    "absolute name": lambda out: deb(member(f"{out}/written", b"x")),
    "link to a directory and a file in it": lambda out: deb(link("./boot/way", f"{out}"), member("./boot/way/written", b"x")),
    "link up": lambda out: deb(link("./boot/way", OUTSIDE), member(f"./boot/way{out}/written", b"x")),
    "hard link to a secret": lambda out: deb(link("./boot/vmlinuz-0", f"{out}/secret", hard=True)),
    "image is a link to a secret": lambda out: deb(link("./boot/vmlinuz-0", f"{out}/secret")),
    "module is a link to a secret": lambda out: deb(link(f"./{MODULES}/kernel/net/b.ko", f"{out}/secret")),
    "modules are a link": lambda out: deb(link("./usr/lib/modules", f"{out}")),
    "etc is a link": lambda out: deb(link("./etc", f"{out}")),
    "modules.dep leads out": lambda out: deb(member(f"./{MODULES}/modules.dep", f"kernel/net/a.ko: {OUTSIDE}{out}/secret\n".encode())),
    "modules.order is a link": lambda out: deb(link(f"./{MODULES}/modules.builtin", f"{out}/secret")),
    "device": lambda out: deb(member("./boot/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)),
    "pipe": lambda out: deb(member(f"./{MODULES}/kernel/net/b.ko", type=tarfile.FIFOTYPE)),
    "set-uid": lambda out: deb(member("./boot/shell", b"#!/bin/sh\n", mode=0o4755)),
    "no rights": lambda out: deb(member("./boot/closed", type=tarfile.DIRTYPE, mode=0)),
    "4 kB name": lambda out: deb(member("./boot/" + "x" * 4000, b"x")),
    "name with a line end": lambda out: deb(member(f"./{MODULES}/kernel/net/a\nb.ko", b"x")),
    "name that is no UTF-8": lambda out: deb(member(f"./{MODULES}/kernel/net/\udcff.ko", b"x")),
    "name of escapes": lambda out: deb(member(f"./{MODULES}/kernel/net/{ESCAPES}.ko", b"x")),
    "xz bomb": lambda out: bomb(),
    "gzip that is none": lambda out: deb(packed=lambda data: b"\x1f\x8b" + data, ending=".gz"),
    "zstd that is none": lambda out: deb(packed=lambda data: b"\x28\xb5\x2f\xfd" + data, ending=".zst"),
    "control of HTML": lambda out: deb(package=HTML),
}
# Images by what they call themselves.
RELEASES = {"HTML": HTML, "traversal": "../../x", "absolute": "/etc/passwd", "escapes": ESCAPES, "long": "6." + "9" * 4000, "empty": "",
            "line end": "6.12\nx", "quotes": "6.12'\"`id`$(id)"}
# What may stand where a kernel's or a file's name does.
NAMES = {"line end": "/none\nkdrift: all is well", "quotes": "/none'\"`id`$(id)", "HTML": f"/none/{HTML}", "4 kB": "/" + "x" * 4096,
         "no UTF-8": "/none/\udcff", "escapes": f"/none/{ESCAPES}", "unknown user": "~nobody-of-that-name/x", "digits": "6." + "9" * 5000}
# Results that are valid, and hostile where they are shown.
SHOWN = {
    "HTML everywhere": lambda: results(TestResult(f"t.py::test_{HTML}", "failed", message=HTML, traceback=HTML, promise=HTML,
                                                  evidence=[{"title": HTML, "text": "]]></script>" + HTML}]), label=HTML, release=HTML),
    "dmesg of escapes": lambda: results(TestResult("t.py::test_a", "crashed", message=f"the kernel crashed: {ESCAPES}")),
    "half a character": lambda: results(TestResult("t.py::test_a", "failed", message="\ud800")),
    "numbers": lambda: results(TestResult("t.py::test_a", virtual_s=1e308, wall_s=-1.0)),
    "label of Markdown": lambda: results(TestResult("t.py::test_a"), label="a|b\n# c `d` [e](f)"),
    "label of escapes": lambda: results(TestResult("t.py::test_a"), label=ESCAPES),
}


def many_tests():
    """A results file of a million tests, some 40 MB: `{"id": ...}` with what the schema asks for would be ten times as much."""
    test = '{"id": "t.py::test_%d", "outcome": "passed"}'
    head, tail = results().split(b'"tests": []')
    return head + b'"tests": [' + ",".join(test % number for number in range(MANY)).encode() + b"]" + tail

