"""Modules that no signed index covers are taken if the signed image names the key that has signed each of them."""
import lzma
import struct
import subprocess

import pytest

from common.errors import FetchError
from kernels import debian, signatures
from kernels.spec import resolve
from tests.harness.debian_archive import configure, new_archive, own_cache, write_deb, write_image

RELEASE, VERSION = "6.19.6-cloud-amd64", "6.19.6-1"


class Key:
    """A key for modules, as a kernel's build makes one."""

    def __init__(self, directory, name):
        self.path = directory / f"{name}.pem"
        words = ["req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", self.path, "-out", self.path]
        subprocess.run(["openssl", *words, "-days", "1"], check=True, capture_output=True)

    def certificate(self):
        return subprocess.run(["openssl", "x509", "-in", self.path, "-outform", "DER"], check=True, capture_output=True).stdout

    def sign(self, data):
        words = ["cms", "-sign", "-binary", "-noattr", "-nocerts", "-md", "sha256", "-signer", self.path, "-outform", "DER"]
        signature = subprocess.run(["openssl", *words], input=data, check=True, capture_output=True).stdout
        return data + signature + struct.pack(">BBBBB3xI", 0, 0, 2, 0, 0, len(signature)) + signatures.MARK


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    directory = tmp_path_factory.mktemp("keys")
    return {name: Key(directory, name) for name in ("kernel", "stranger")}


def write_kernel(path, certificate):
    """An image whose compressed kernel holds a certificate."""
    write_image(path, RELEASE)
    image = bytearray(path.read_bytes())
    payload = lzma.compress(b"kernel" * 100 + certificate + b"kernel" * 100) + bytes(4)
    struct.pack_into("<II", image, 0x248, 0x1000, len(payload))
    image[4 * 512 + 0x1000:4 * 512 + 0x1000 + len(payload)] = payload
    path.write_bytes(image)


@pytest.fixture
def offered(tmp_path, monkeypatch, keys):
    """offered(module): an archive whose index has the kernel's image, and not its modules, one of which is this."""
    (tmp_path / "archive").mkdir()
    with new_archive(tmp_path / "archive") as archive:
        configure(tmp_path, monkeypatch, f"deb [signed-by={archive.keyring}] file:{archive.root}/debian bookworm main\n")

        def offer(module):
            write_kernel(tmp_path / f"binary/usr/lib/modules/{RELEASE}/vmlinuz", keys["kernel"].certificate())
            place = tmp_path / f"modules/usr/lib/modules/{RELEASE}/kernel/a.ko.xz"
            place.parent.mkdir(parents=True)
            place.write_bytes(lzma.compress(module))
            (tmp_path / "image").mkdir()
            write_deb(archive.pool, f"linux-binary-{RELEASE}", VERSION, tmp_path / "binary")
            write_deb(archive.root / "debian/pool/main/l/linux", f"linux-modules-{RELEASE}", VERSION, tmp_path / "modules")
            write_deb(archive.pool, f"linux-image-{RELEASE}", VERSION, tmp_path / "image",
                      f"linux-binary-{RELEASE} (= {VERSION}), linux-modules-{RELEASE} (= {VERSION})")
            archive.publish()
            return archive

        yield offer


@pytest.fixture
def cache(tmp_path, monkeypatch):
    with own_cache(tmp_path, monkeypatch) as cache:
        yield cache


@pytest.fixture
def unparsed(monkeypatch):
    """Nothing of a module is parsed before its signature has been checked."""
    monkeypatch.setattr(debian, "settle", lambda root: pytest.fail("depmod read the modules"))


def test_the_image_names_the_key_of_the_modules(cache, keys, offered):
    archive = offered(keys["kernel"].sign(b"a module"))

    kernel = resolve("6.19", cache)

    fingerprint = archive._gpg("--list-keys", "--with-colons").decode().partition("\nfpr:::::::::")[2][:40]
    assert f"the index of bookworm, signed by {fingerprint}; the modules by kernel " in kernel.verified


@pytest.mark.parametrize("module, why", [("stranger", "kernel/a.ko.xz is not signed by a key in the kernel's image"),
                                         ("altered", "kernel/a.ko.xz is not signed by a key in the kernel's image"),
                                         ("unsigned", "kernel/a.ko.xz has no signature"),
                                         ("cut", "kernel/a.ko.xz has a damaged signature")])
def test_modules_of_others_are_refused_in_one_line(cache, keys, offered, unparsed, module, why):
    signed = keys["stranger" if module == "stranger" else "kernel"].sign(b"a module")
    offered({"altered": b"A" + signed[1:], "unsigned": b"a module", "cut": signed[-40:]}.get(module, signed))

    with pytest.raises(FetchError, match=f"cannot be verified: {why}; --allow-unverified boots it all the same$"):
        resolve("6.19", cache)
    assert cache.entries("kernels") == []


def test_modules_of_others_are_taken_on_request_and_only_then(cache, keys, offered):
    """Also out of the cache."""
    offered(b"a module")
    assert resolve("6.19", cache, allow_unverified=True).verified == ""

    for spec in ("6.19", VERSION):
        with pytest.raises(FetchError, match="cannot be verified"):
            resolve(spec, cache)


def test_what_an_earlier_version_cached_unverified_is_not_booted_offline(cache, keys, offered):
    offered(b"a module")
    resolve("6.19", cache, allow_unverified=True)

    with pytest.raises(FetchError, match="is not verified, and --offline forbids fetching it anew"):
        resolve(VERSION, cache, offline=True)
    assert resolve(VERSION, cache, offline=True, allow_unverified=True).verified == ""


def test_modules_cannot_bring_an_image(cache, tmp_path, keys, offered):
    """It would come before the signed one."""
    write_kernel(tmp_path / "modules/usr/lib/modules/0/vmlinuz", keys["stranger"].certificate())
    offered(keys["stranger"].sign(b"a module"))

    with pytest.raises(FetchError, match="is not signed by a key in the kernel's image"):
        resolve("6.19", cache)
