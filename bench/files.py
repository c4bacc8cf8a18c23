"""Files that are either whole or absent, and digests that say what is in them."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from bench.errors import BenchError


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically: temporary file in the same folder, fsync, rename.

    Raises OSError that names ``path``, or the folder above it that cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write(path, data)
    except OSError as error:  # it names the temporary file, or none where the disk is full
        error.filename, error.filename2 = str(path), None
        raise


def _write(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN is refused because JSON has none."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode())


# What may lie under a file's name. Who opens a pipe waits for its writer; a device may never end.
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def regular(path: Path) -> io.BufferedReader:
    """A regular file, open for reading; links are followed. It never waits, whatever lies there.

    Raises OSError that names ``path``: of the system, or, for a pipe, a socket or a device, EINVAL.
    """
    _check_kind(path, os.stat(path).st_mode)  # before it is opened: opening alone may act on a device
    file = os.fdopen(
        os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb"
    )
    try:
        _check_kind(path, os.fstat(file.fileno()).st_mode)  # it may have been exchanged in between
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
    """The content of a regular file. Raises OSError that names it, as ``regular`` does."""
    with regular(path) as file:
        return file.read()


def read_text(path: Path) -> str:
    """The content of a text file. Raises BenchError where it is not UTF-8, OSError as ``regular`` does."""
    try:
        with regular(path) as file, io.TextIOWrapper(file, encoding="utf-8") as text:
            return text.read()
    except UnicodeDecodeError as error:
        raise BenchError(
            f"{path}: not UTF-8 text (byte {error.start} is 0x{error.object[error.start]:02x}): "
            "save it as UTF-8"
        ) from error


def read_json(path: Path) -> Any:
    """The parsed content of a UTF-8 JSON file. Raises BenchError where it is no such text."""
    return json.loads(read_text(path))


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hex. Raises OSError as ``regular`` does."""
    with regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 (hex) of a JSON-able value in canonical form: sorted keys, no blanks, tuples as lists."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
