"""What `./kdrift run` takes from a guest besides its reports: an archive for --out, the outcome, lines that kdrift prints itself."""

import os
import tarfile

import pytest

from command.frames import FrameReader, read_outcome
from command.kept import left_out_line, unpack_kept
from command.results import run_results
from command.session import CommandRun, CommandSession, Task
from common.errors import FetchError
from session.runs import KernelRun
from vm.command import END, HEAD, LOG, OUTPUT
from vm.job import Events
from vm.outlet import Misbehaved


def member(name, kind=tarfile.REGTYPE, data=b"hostile", link="", mode=0o644, size=None):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode, entry.size = kind, str(link), mode, len(data) if size is None else size
    return entry, data if kind == tarfile.REGTYPE else b""


@pytest.fixture
def archive(tmp_path):
    def write(*members, pax=None):
        path = tmp_path / "kept.tar"
        with path.open("wb") as file:
            for entry, data in members:
                entry.pax_headers = pax or {}
                file.write(entry.tobuf(tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT, errors="surrogateescape"))
                file.write(data + bytes(-len(data) % 512))
            file.write(bytes(1024))
        return path
    return write


@pytest.fixture
def outside(tmp_path):
    """A directory with a file that no guest may change; whether it is as it was is checked at the end."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "file").write_text("mine")
    yield place
    assert [(path.name, path.read_text(), path.stat().st_mode & 0o777) for path in place.iterdir()] == [("file", "mine", 0o644)]


@pytest.fixture(autouse=True)
def mask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_files_and_directories_come_with_their_contents(archive, tmp_path):
    path = archive(member(".", tarfile.DIRTYPE), member("./a", tarfile.DIRTYPE, mode=0), member("./a/b", data=b"1" * 5000),
                   member("./run.sh", data=b"2", mode=0o755), member("./again", tarfile.LNKTYPE, link="./a/b"),
                   member("./\udcff", data=b""))
    assert unpack_kept(path, tmp_path / "out", ["6.12", "x"]) == []
    out = tmp_path / "out/6.12/x"
    assert {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()} == {
        "a/b": b"1" * 5000, "run.sh": b"2", "again": b"1" * 5000, "\udcff": b""}
    assert [os.access(out / name, os.X_OK) for name in ("run.sh", "again")] == [True, False]


def test_what_an_earlier_run_left_is_replaced(archive, tmp_path):
    for data in (b"old", b"new"):
        unpack_kept(archive(member("./a/file", data=data), member("./b", tarfile.LNKTYPE, link="a/file")), tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == {"file": b"new", "b": b"new"}


def test_links_and_devices_are_left_out_and_no_mode_is_taken(archive, tmp_path, outside):
    path = archive(member("to", tarfile.SYMTYPE, link=outside), member("hard", tarfile.LNKTYPE, link="to"),
                   member("null", tarfile.CHRTYPE), member("disk", tarfile.BLKTYPE), member("\x1b[2J", tarfile.FIFOTYPE),
                   member("root", mode=0o6777), member("to/file"))
    left_out = unpack_kept(path, tmp_path / "out")
    assert left_out == ["to", "hard", "null", "disk", "\x1b[2J"]
    assert left_out_line(left_out[-2:]).endswith("left out: disk, \\x1b[2J") and left_out_line(left_out).endswith(", ...")
    assert {str(path.relative_to(tmp_path / "out")): path.stat().st_mode & 0o7777 for path in (tmp_path / "out").rglob("*")} == {
        "root": 0o755, "to": 0o755, "to/file": 0o644}


@pytest.mark.parametrize("name", ["to/file", "to/new", "to/file/new"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE])
def test_a_link_that_an_earlier_run_left_is_not_followed(archive, tmp_path, outside, name, kind):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/to").symlink_to(outside)
    with pytest.raises(FetchError, match=f"--out .*: {name}: "):
        unpack_kept(archive(member("mine"), member(name, kind, link="mine")), tmp_path / "out")


@pytest.mark.parametrize("below", [["label"], ["label", "deeper"], ["..", "label"]])
def test_nor_is_one_in_the_place_of_a_kernels_directory(archive, tmp_path, outside, below):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/label").symlink_to(outside)
    with pytest.raises(FetchError):
        unpack_kept(archive(member("file")), tmp_path / "out", below)


def test_a_link_in_the_place_of_a_file_is_replaced(archive, tmp_path, outside):
    (tmp_path / "out").mkdir()
    for name in ("a", "b"):
        (tmp_path / "out" / name).symlink_to(outside / "file")
    assert unpack_kept(archive(member("a"), member("b", tarfile.LNKTYPE, link="a")), tmp_path / "out") == []
    assert not any((tmp_path / "out" / name).is_symlink() for name in ("a", "b"))


@pytest.mark.parametrize("members, pax", [
    ([member("../outside/file")], None), ([member("a/../../outside/file")], None), ([member("..", tarfile.DIRTYPE)], None),
    ([member("/{outside}/file")], None), ([member("a", tarfile.LNKTYPE, link="../outside/file")], None),
    ([member("a", tarfile.LNKTYPE, link="/etc/passwd")], None),
    ([member("x")], {"path": "../outside/file"}), ([member("x")], {"size": "-512"}), ([member("x")], {"size": "9" * 400}),
    ([member("x", size=1 << 50)], None), ([member("x", size=-512)], None), ([member("x" * 300)], None), ([member("x")], {"path": "y\0z"}),
    ([member("x", tarfile.XHDTYPE, size=1 << 40)], None), ([member("x"), member("x/y")], None),
    ([member("x", tarfile.DIRTYPE), member("x")], None),
])
def test_a_hostile_archive_is_one_line(archive, tmp_path, outside, members, pax):
    for entry, _data in members:
        entry.name = entry.name.replace("/{outside}", str(outside))
    with pytest.raises(FetchError) as refused:
        unpack_kept(archive(*members, pax=pax), tmp_path / "out")
    assert str(refused.value).isprintable() and len(str(refused.value)) < 1000


@pytest.mark.parametrize("cut", [1, 511, 513, 600])
def test_a_truncated_archive_is_one_line(archive, tmp_path, cut):
    path = archive(member("file", data=b"1" * 1000))
    os.truncate(path, cut)
    with pytest.raises(FetchError):
        unpack_kept(path, tmp_path / "out")


def test_a_sparse_file_of_any_size_is_left_out(archive, tmp_path):
    path = archive(member("x"), pax={"GNU.sparse.major": "0", "GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 50)})
    assert unpack_kept(path, tmp_path / "out") == ["x"]


@pytest.mark.parametrize("content", [
    b"", b"\xff", b"[]", b"[" * 100_000, b"{}", b'{"status": 0, "seconds": 1.0}', b'{"status": "0", "seconds": 1.0, "idle": 1.0}',
    b'{"status": 256, "seconds": 1.0, "idle": 1.0}', b'{"status": 0, "seconds": NaN, "idle": 1.0}',
    b'{"status": 0, "seconds": 1.0, "idle": ' + b"9" * 1000 + b"}", b'{"status": 0, "seconds": [], "idle": 1.0}'], ids=lambda data: None)
def test_an_outcome_of_a_command_has_its_form(content):
    with pytest.raises(Misbehaved):
        read_outcome(content)


def test_the_outcome_of_a_command_is_taken():
    assert read_outcome(b'{"status": 7, "seconds": 1.5, "idle": -0.01}') == {"status": 7, "seconds": 1.5, "idle": -0.01}


@pytest.fixture
def run(tmp_path):
    found = CommandRun(KernelRun("0", "6.12", "6.12"), Task("t.sh", ("t.sh",), "/", tmp_path), "6.12  ", Events(tmp_path / "events"),
                       tmp_path / "kept")
    found.outcome = {"status": 1, "seconds": 2.0, "idle": 1.0}
    return found


def test_the_terminal_obeys_the_output_of_a_command_and_nothing_else(run, capfdbinary):
    run.show(OUTPUT, b"\x1b[1mbold\n")
    run.log = ["WARNING: \x1b]0;title\x07 at net/core/dev.c"]
    run.finish()
    said = capfdbinary.readouterr()
    assert said.out == b"6.12  \x1b[1mbold\n"
    assert b"kdrift: 6.12  the kernel complains: WARNING: \\x1b]0;title\\x07 at net/core/dev.c\n" in said.err and b"\x1b" not in said.err


def test_results_have_no_escapes(run):
    run.output[OUTPUT] = b"not ok 1 \x1b[31mred\x1b[0m\x1b[2J\x9b # TODO\nnot ok 2 \x1b]0;x\x07 # SKIP \x1b[2J\nlast\x07\n"
    for result in run_results(run, False):
        assert result.id.isprintable() and result.message.isprintable()
        assert all(line.isprintable() for line in result.traceback.splitlines())


def test_kernel_log_lines_come_without_escapes(run):
    session = CommandSession.__new__(CommandSession)
    read, written = os.pipe()
    frames = ((LOG, b"WARNING: \x1b[2J"), (END, b"[" * 50_000))
    os.write(written, b"".join(HEAD.pack(kind, len(data)) + data for kind, data in frames))
    os.close(written)
    with open(read, "rb") as stdout:
        process = type("Process", (), {"stdout": stdout})
        assert session._read(run, process, FrameReader())
    assert run.complaints == ["WARNING: \\x1b[2J"]
    assert run.end["why"] == "the guest does not say how the command ended"
