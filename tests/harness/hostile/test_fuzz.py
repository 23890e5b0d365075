"""Whatever is in a file from outside, its parser takes it or refuses it in one line of its own; no other error passes."""

import functools
import json
import math
import random
import tempfile
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli import bench
from common.errors import CacheError, SpecError
from kernels import grammar, lists, modules, packages, sources
from kernels.cache import MANIFEST, Cache
from kernels.extract import image_release, packaged_version
from report import chance, expected, kinds, known, signature
from report.files import write_files
from report.labels import LabelError, split_label
from report.reading import ResultsError, read
from report.results import KernelResult, TestResult, write_json
from report.verdict import compare_all
from session import durations
from tests.harness.debian_archive import write_image

hypothesis = pytest.importorskip("hypothesis", reason="./kdrift selftest installs it")
st = hypothesis.strategies

TEXTS = ["", "\n", "../../etc/passwd", "/etc/passwd", "a\0b", "\x1b[2J", "<script>alert(1)</script>", "]]>", "\ud800", "x" * 5000,
        "9" * 5000,
         "6.12", "tests/a.py::test_a[x]", "‮", "NaN", "~nobody-of-that-name"]
NUMBERS = [0, -1, 1.5, 1 << 80, float("inf"), float("nan"), True]
VALUES = [None, [], {}, [[]], [None], {"": {}}, *NUMBERS, *TEXTS]
chances = st.integers(0, 1 << 32).map(random.Random)
leaves = st.sampled_from(VALUES) | st.text(max_size=20)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6)


def changed(document, chance):
    """The document with one to three of its places changed: another value, none, or twice."""
    document = json.loads(json.dumps(document))
    for _ in range(chance.randint(1, 3)):
        place = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = chance.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and chance.random() < 0.8:
                place = place[key]
                continue
            what = chance.randrange(5)
            if what == 0:
                del place[key]
            elif what == 1 and isinstance(place, list):
                place.append(deepcopy(place[key]))
            elif what == 1:
                place[chance.choice(TEXTS)] = deepcopy(place[key])
            else:
                place[key] = deepcopy(chance.choice(VALUES))       # else it may come to hold itself
            break
    return document


def damaged(data, chance):
    """The bytes cut, flipped, overwritten or repeated."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        what = chance.randrange(4)
        if what == 0:
            del data[at:]
        elif what == 1 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif what == 2:
            data[at:at + 8] = chance.randbytes(8)
        else:
            data[at:at] = data[at:at + 50]
    return bytes(data)


def encoded(document):
    return json.dumps(document, ensure_ascii=False).encode(errors="surrogatepass")


def variants(*documents):
    """Files of the shape of one of these documents, damaged as bytes, of any other shape, or of no shape at all."""
    shaped = st.builds(lambda document, chance: encoded(changed(document, chance)), st.sampled_from(documents), chances)
    broken = st.builds(lambda document, chance: damaged(encoded(document), chance), st.sampled_from(documents), chances)
    return shaped | shaped | broken | values.map(encoded) | st.binary(max_size=100) | st.just(b"[" * 100_000)


def toml(name, entry):
    lines = [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
    return "\n".join([f"[[{name}]]", *lines]).encode(errors="surrogatepass")


def texts(*seeds):
    """Damaged forms of these texts, and any other."""
    return st.builds(damaged, st.sampled_from(seeds), chances) | st.binary(max_size=200) | st.text(max_size=100).map(
        lambda text: text.encode(errors="surrogatepass"))


TEST = TestResult("tests/keepalive/test_a.py::test_a[x]", "passed", promise="it holds", traffic={"a sent ipv4 tcp S seq 0 len 0": 1.0},
                  measurements=[{"name": "m", "value": 1.0, "unit": "s", "tolerance": 0.1}],
                  cells=[{"table": "t", "row": "x", "rows": "r", "column": "c", "columns": "cs", "seen": "s", "expected": [],
                          "began": 0.0}])
FAILED = TestResult("tests/keepalive/test_a.py::test_b", "failed", message="assert 1 == 2", traceback=">   assert 1 == 2\nE  assert",
                    evidence=[{"title": "t", "text": "x"}], captures=[{"host": "a", "base64": "AAAA", "cut": 0}], attempts=["lost"],
                    signatures=["assert # == #"], confirmation={"seeds": [1], "new": [1], "old": None, "deterministic": True,
                            "trouble": ""})
RUN = {"started": "2026-01-01T00:00:00+00:00", "duration_s": 1.0, "arguments": ["-q"], "python": "3.11", "exit_status": 0}


@functools.cache
def results():
    kernels = [KernelResult(name, name, release=f"{name}.1", version=f"{name}.1-1", counters=["Tcp.X"], tests=[TEST, FAILED],
            unrun=["t.py::c"])
               for name in ("6.1", "6.12")]
    return {"schema": 3, "run": RUN, "kernels": json.loads(json.dumps([vars(kernel) for kernel in kernels], default=vars))}


ISSUE = {"id": "a", "subject": "s", "tests": ["tests/a.py::*"], "kernels": ["6.1..6.12.1"], "commit": "0" * 12}
CHANGE = {"id": "a", "sentence": "s", "kinds": ["more: tcp S"], "kernels": ["6.1.."], "unknown": "u", "tests": ["*[x]"]}
INDEX = {"updated": 1.0, "failed": {"sid": "why"}, "origin": "x", "unread": {"forky": [["6.1", "6.1-1"]]}, "packages": [
    {"name": "linux-image-6.1.0-1-amd64", "version": "6.1-1", "suite": "sid", "size": 1, "sha256": "0", "depends": [], "path": ""}]}
STANZA = (b"Package: linux-image-6.1.0-1-amd64\nVersion: 6.1-1\nSize: 1\nSHA256: 0\nFilename: pool/a.deb\nDepends: linux-base\n\n"
          b"Package: x-di\nKernel-Version: 6.1\nVersion: 6.1-1\n\n")


class Parser:
    """`parse` takes a file's bytes at a path; `refuses` are the errors that say why not. `weight`: its share of the cases."""

    def __init__(self, files, refuses, weight=1.0):
        self.files, self.refuses, self.weight = files, refuses, weight

    def __call__(self, parse):
        PARSERS[parse.__name__] = self
        self.parse = parse
        return parse


PARSERS = {}


@Parser(variants(results()), ResultsError, 1.0)
def results_json(path):
    read(path)


@Parser(chances.map(lambda chance: encoded(changed(results(), chance))), ResultsError, 0.3)
def reports_of_results(path):
    """What is read can be compared and written."""
    run, kernels = read(path)
    (path.parent / "report").mkdir(exist_ok=True)
    write_files(path.parent / "report", run, kernels, compare_all(kernels))
    write_json(path, run, kernels)
    read(path)


@Parser(texts(toml("issue", ISSUE)) | chances.map(lambda chance: toml("issue", changed(ISSUE, chance))),
        known.KnownIssuesError)
def known_issues_toml(path):
    for issue in known.load.__wrapped__(path, with_signatures=False):
        issue.shows_in("tests/a.py::test_a"), issue.affects("6.1"), issue.fixed_in("6.1"), f"{issue}"


@Parser(variants({"a": {"assert # == #": ["6.1.1-1"]}}), known.KnownIssuesError)
def known_signatures_json(path):
    known.read_signatures(path)


@Parser(texts(toml("change", CHANGE)) | chances.map(lambda chance: toml("change", changed(CHANGE, chance))),
        expected.ExpectedError)
def changes_toml(path):
    for each in expected.load.__wrapped__(path):
        each.came_with("6.1"), each.fits("more: tcp S", ["t"]), f"{each}"


@Parser(variants({"made_from": ["6.1, 2 runs"], "moves": {"t.py::test_a": ["tcp S"]}}), chance.ChanceError)
def chance_json(path):
    chance.stored(path)


@Parser(variants({"figures": [{"name": "a", "values": [1.0, 2.0], "unit": "s", "note": ""}]}), ValueError)
def bench_json(path):
    assert all(isinstance(value, float) for value in bench.stored(path).values())


@Parser(variants({"t.py::test_a": 1.0}), ())
def durations_json(path):
    path.rename(path.with_name(durations.NAME))
    assert all(isinstance(value, float) and math.isfinite(value) for value in durations.read().values())


@Parser(variants(INDEX), ())
def index_json(path):
    index = packages.Index.load(path)
    if index:
        for spec in ("6.1", "6.1-1", "linux-image-6.1.0-1-amd64"):
            index.needs(grammar.parse(spec)), index.serves(grammar.parse(spec)), index.candidates


@Parser(variants({"built": 1.0, "meta": {"kernel": "k"}, "files": {"image": [4, 1, "00"]}}), CacheError)
def manifest_json(path):
    with Cache(path.parent / "cache", say=lambda line: None) as cache:
        entry = cache.area("images") / "k"
        entry.mkdir(exist_ok=True)
        path.rename(entry / MANIFEST)
        assert all(isinstance(each.meta, dict) for each in cache.entries())
        cache.damage(entry, deep=True), cache.meta(entry)


@functools.cache
def image():
    with tempfile.TemporaryDirectory() as directory:
        return write_image(Path(directory, "bzImage"), "6.12.0-<b>").read_bytes()[:0x800]


@Parser(texts(b"") | st.builds(lambda at, word, size: image()[:at] + word + image()[at + len(word):size], st.sampled_from(
    [0x1F1, 0x1F4, 0x202, 0x20E, 0x500]), st.binary(max_size=8), st.integers(0, 0x800)), SpecError, 1.0)
def kernel_image(path):
    assert "/" not in image_release(path)
    packaged_version(path)


@Parser(texts(b"kernel/net/a.ko: kernel/net/b.ko\nkernel/net/b.ko:\n"), ())
def modules_dep(path):
    modules.parse(path.read_bytes().decode(errors="replace"))
    tree = path.parent / "tree"
    tree.mkdir(exist_ok=True)
    (tree / "Makefile").touch()
    path.rename(tree / "modules.order")
    assert modules.files(tree) == []


@Parser(texts(b"deb [signed-by=/a.gpg arch=amd64] http://a/debian bookworm main\n",
        b"Types: deb\nURIs: http://a\nSuites: sid\nComponents: main\n"
              b"Signed-By:\n -----BEGIN\n .\n", b'deb [a="b] http://a sid main\n'), ())
def sources_list(path):
    for suffix in (".list", ".sources"):
        place = path.with_suffix(suffix)
        place.write_bytes(path.read_bytes())
        for source in sources.read_sources(place, path.parent / "none"):
            source.stanza("sid")


@Parser(texts(STANZA), ())
def package_list(path):
    apt = SimpleNamespace(list_of=lambda suite: path, installer_list_of=lambda suite: path, read_list=lambda path: path.read_bytes(),
                          sources=["sid", "experimental"], origin="x")
    index = lists.read_index(apt, {})
    lists.read_packages(apt, "sid")
    index.candidates, index.needs(grammar.parse("6.1"))


@Parser(texts(b"6.12", b"6.1.187-1", b"/a/b,modules=/c", b"linux-image-6.1", *(text.encode(errors="ignore") for text in TEXTS)),
        (SpecError, LabelError))
def specification(path):
    word = path.read_bytes().decode(errors="surrogateescape").replace("\0", "")
    try:
        what, _label = split_label(word, grammar.parse)
        spec = grammar.parse(what)
    except ValueError as error:
        raise SpecError(error) from None
    if not isinstance(spec, grammar.LocalSpec):
        packages.Index([packages.Package(**INDEX["packages"][0] | {"depends": ()})], 1.0, {}).find(spec)


@Parser(texts(b"a sent ipv4 tcp S seq 0 len 0", b"the kernel logs: x", b"a counts X on y", b"[Errno 5] x",
        b"the kernel crashed: RIP: 0010:f+0x"), ())
def words_of_a_kernel(path):
    text = path.read_bytes().decode(errors="replace")
    assert "\n" not in signature.signature(text, text)
    signature.matches(text, text)
    _rank, topic = kinds.topic(text)
    for direction in ("more", "new"):
        assert kinds.mirrored(kinds.mirrored(f"{direction}: {topic}")) == f"{direction}: {topic}"
        kinds.words(f"{direction}: {topic}")


def cases(name, all_cases):
    return max(1, round(all_cases * PARSERS[name].weight / sum(parser.weight for parser in PARSERS.values())))


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_takes_a_file_or_refuses_it_in_one_line(name, tmp_path, pytestconfig, inputs, monkeypatch):
    monkeypatch.setenv("KDRIFT_CACHE", str(tmp_path))
    parser, tried = PARSERS[name], 0

    @hypothesis.settings(max_examples=cases(name, pytestconfig.option.fuzz), derandomize=True, database=None, deadline=None,
                         suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(parser.files)
    def fuzz(data):
        nonlocal tried
        tried += 1
        path = tmp_path / "given"
        path.write_bytes(data)
        try:
            parser.parse(path)
        except parser.refuses as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
            f"{error}".encode()

    fuzz()
    inputs["cases of the fuzzer"] = inputs.get("cases of the fuzzer", 0) + tried
