"""Reading and writing files: a file is either whole or absent, and digests say what is in it.

A file is written under a temporary name beside its place and then renamed. Its writer holds a lock on the
temporary file. The lock ends with the process, so a temporary file that nobody holds was left by a writer
that died, and ``sweep`` deletes it. This module imports only errors.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from bench.errors import BenchError

try:
    import fcntl
except ImportError:  # on Windows, temporary files of dead writers stay
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically: to a temporary file in the same folder, which is then renamed.

    Raises OSError that names ``path``, or the folder above it that cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _naming(path):
        _write(path, data)


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that gets its name when the block has ended; after an error there is none.

    Raises OSError that names ``path``, or the folder above it that cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _naming(path):
        file, temporary = _begun(path)
    try:
        with file:
            yield file
            with _naming(path):
                _fill(file, temporary, b"")
                os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write several files as ``write_bytes`` does; all are written whole before the first gets its name."""
    made: dict[Path, str] = {}
    try:
        with ExitStack() as held:
            for path, data in contents.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                with _naming(path), ExitStack() as this:
                    file, made[path] = _begun(path)
                    _fill(this.enter_context(file), made[path], data)
                    held.push(this.pop_all())  # stays locked until all are in place
            for path, temporary in made.items():
                with _naming(path):
                    os.replace(temporary, path)
    finally:
        for temporary in made.values():
            Path(temporary).unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Make an OSError of the block name ``path``; on a full disk it would name no file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_new(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` if it is not there yet. If several processes try at once, one writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), _naming(path):
        _write(path, data, _link)


def _link(temporary: str, path: Path) -> None:
    os.link(temporary, path)
    os.unlink(temporary)


def _write(path: Path, data: bytes, put: Callable[[str, Path], None] | None = None) -> None:
    file, temporary = _begun(path)
    try:
        with file:
            _fill(file, temporary, data)
            (put or os.replace)(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _fill(file: IO[bytes], temporary: str, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
    if os.name == "nt":
        file.close()  # Windows does not rename an open file
    os.chmod(temporary, 0o644)


def _begun(path: Path) -> tuple[IO[bytes], str]:
    """Open a temporary file beside ``path``, lock it if the file system can, and return it and its name."""
    while True:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.", suffix=".tmp")
        file = os.fdopen(handle, "wb")
        with suppress(OSError):
            lock(file)
        if os.fstat(handle).st_nlink:
            return file, temporary
        file.close()  # another process deleted it before it was locked


def lock(file: IO[bytes], wait: bool = True) -> None:
    """Lock an open file until it is closed or the process ends.

    Raises OSError if the file system has no locks or, without ``wait``, if another process holds the lock.
    """
    if fcntl:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def delete_unheld(file: Path, unwanted: Callable[[Path], bool] = lambda file: True) -> None:
    """Delete a file that no process has locked, if ``unwanted`` says so while this process has the lock."""
    if fcntl:
        with suppress(OSError), file.open("r+b") as handle:  # locked, not ours, or gone by now
            lock(handle, wait=False)
            if unwanted(file):
                file.unlink()


def sweep(folder: Path, deep: bool = True) -> None:
    """Delete the temporary files that dead writers left in a folder and, with ``deep``, in those below it."""
    for file in _entries(folder, deep):
        if _TEMPORARY.fullmatch(file.name):
            delete_unheld(Path(file.path))


def _entries(folder: Path | str, deep: bool) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError:  # there is no such folder, or we may not read it
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if deep:
                yield from _entries(entry.path, deep)
        else:
            yield entry


def leftovers(folder: Path, deep: bool = True) -> Iterator[Path]:
    """Yield the files that ``sweep`` would delete, and delete nothing."""
    for entry in _entries(folder, deep):
        if _TEMPORARY.fullmatch(entry.name) and fcntl:
            with suppress(OSError), open(entry.path, "r+b") as file:  # held, not ours, or just gone
                lock(file, wait=False)
                yield Path(entry.path)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. Raises ValueError for NaN, because JSON has none."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode())


# What else a path may lead to. Opening a pipe waits for its writer, and a device may never end.
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading and return it. Links are followed, and opening never waits.

    Raises OSError that names ``path``: the system's own, or EINVAL for a pipe, a socket or a device.
    """
    _check_kind(
        path, os.stat(path).st_mode
    )  # checked before it is opened, because opening may act on a device
    file = os.fdopen(
        os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb"
    )
    try:
        _check_kind(
            path, os.fstat(file.fileno()).st_mode
        )  # checked again, because it may have been exchanged meanwhile
    except OSError:
        file.close()
        raise
    return file


def _check_kind(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(errno.EINVAL, f"{kind}, not a regular file", str(path))


def read_bytes(path: Path) -> bytes:
    """Return the content of a regular file. Raises OSError as ``regular`` does."""
    with regular(path) as file:
        return file.read()


def read_text(path: Path) -> str:
    """Return the content of a text file. Raises BenchError if it is not UTF-8, else as ``regular`` does."""
    try:
        with regular(path) as file, io.TextIOWrapper(file, encoding="utf-8") as text:
            return text.read()
    except UnicodeDecodeError as error:
        raise BenchError(
            f"{path}: not UTF-8 text (byte {error.start} is 0x{error.object[error.start]:02x}): "
            "save it as UTF-8"
        ) from error


def read_json(path: Path) -> Any:
    """Return the parsed content of a UTF-8 JSON file. Raises BenchError if the file is not UTF-8."""
    return json.loads(read_text(path))


class Stamp(NamedTuple):
    """The size, times and number of a file; if they are as before, the file counts as unchanged.

    ``mtime_ns``: when the content changed, in ns. ``ctime_ns``: when the entry changed, in ns; the system
    sets it, and no program sets it back. ``number``: the inode.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    number: int


def stamp(file: str | Path | int) -> Stamp:
    """Return the stamp of a file, given by its path or open. Raises OSError if there is no such file."""
    stat = os.stat(file)
    return Stamp(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def stamp_if_there(file: str | Path) -> Stamp | None:
    """Return the stamp of a file, or None if there is no such file."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return stamp(file)
    return None


def sha256_file(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes. Raises OSError as ``regular`` does."""
    with regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of a value as canonical JSON: sorted keys, no blanks, tuples as lists."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
