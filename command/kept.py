"""What a command has left in its output directory, as a tar archive of a guest's, which is a stranger.

Regular files and directories are taken, and nothing else: no link, device, owner, mode or time. Every directory is opened without
following links, so that none that an earlier run has left leads out either. (The filters of Python's tarfile are not in Debian 12's.)
"""
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.errors import FetchError, one_line
from kernels.unpack import Header

MOST_NAMES = 200_000
TOLD = 3                                    # names in the line about those that are left out


def unpack_kept(archive: Path, target: Path, below: Sequence[str] = ()) -> list[str]:
    """Unpack into the directory that is so far `below` the target, which is made if need be.

    Returns the names that are left out. Raises FetchError if the archive is damaged or a name leads out.
    """
    name, below = "", [part for part in below if part not in ("", ".", "..")]
    try:
        target.mkdir(parents=True, exist_ok=True)
        with _opened(os.open(target, os.O_RDONLY | os.O_DIRECTORY), below) as root, archive.open("rb") as source, \
                tarfile.open(fileobj=source, mode="r|", tarinfo=Header, errors="surrogateescape") as members:
            left_out, taken = [], set()
            for number, member in enumerate(members):
                name = member.name
                parts = parts_of(name)
                if number == MOST_NAMES:
                    raise tarfile.ReadError(f"more than {MOST_NAMES} names")
                if member.isdir():
                    with _opened(os.dup(root), parts):
                        pass
                elif member.isreg() and not member.issparse() and member.size >= 0 and parts:
                    _write(members, member, root, parts)
                    taken.add(parts)
                elif member.islnk() and parts and parts_of(member.linkname) in taken:
                    _copy(root, parts_of(member.linkname), parts)       # another name of a file that is here
                    taken.add(parts)
                else:
                    left_out.append(name)
        return left_out
    except OSError as error:
        raise FetchError(one_line(f"--out {target}: {name}: {error.strerror}")) from None
    except (tarfile.TarError, ValueError, ArithmeticError, LookupError, EOFError, RecursionError) as error:
        raise FetchError(one_line(f"--out {target}: {name}: {error or type(error).__name__}")) from None


def left_out_line(names: Sequence[str]) -> str:
    """What is said of them."""
    shown = ", ".join(one_line(name) for name in names[:TOLD]) + ", ..." * (len(names) > TOLD)
    return f"--out: only files and directories are brought; left out: {shown}"


def parts_of(name: str) -> tuple[str, ...]:
    """Raises tarfile.ReadError for a name that leads out."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts:
        raise tarfile.ReadError("the name leads out of the directory")
    return parts


@contextmanager
def _opened(directory: int, parts: Sequence[str]) -> Iterator[int]:
    """The directory so far below an open one, made if need be; both are closed at the end.  Raises OSError for a link on the way."""
    try:
        for part in parts:
            try:
                os.mkdir(part, dir_fd=directory)
            except FileExistsError:
                pass
            deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = deeper
        yield directory
    finally:
        os.close(directory)


@contextmanager
def _created(root: int, parts: Sequence[str], executable: bool) -> Iterator[int]:
    """A new file in the place of any that is there, or of a link."""
    with _opened(os.dup(root), parts[:-1]) as directory:
        try:
            os.unlink(parts[-1], dir_fd=directory)
        except FileNotFoundError:
            pass
        file = os.open(parts[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o777 if executable else 0o666, dir_fd=directory)
    try:
        yield file
    finally:
        os.close(file)


def _write(members: tarfile.TarFile, member: tarfile.TarInfo, root: int, parts: Sequence[str]) -> None:
    source = members.extractfile(member)
    assert source
    with source, _created(root, parts, bool(member.mode & 0o100)) as file, open(file, "wb", closefd=False) as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _copy(root: int, old: Sequence[str], new: Sequence[str]) -> None:
    """The file itself under another name."""
    with _opened(os.dup(root), old[:-1]) as there, _opened(os.dup(root), new[:-1]) as here:
        try:
            os.unlink(new[-1], dir_fd=here)
        except FileNotFoundError:
            pass
        os.link(old[-1], new[-1], src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
