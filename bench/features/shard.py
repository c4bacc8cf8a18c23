"""One shard of a feature set: a float16 ``.npy`` file that numpy can memory-map, and its JSON manifest.

The manifest vouches for the file: it is written last, and a shard exists when its manifest does. No torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO

import numpy as np

from bench.files import digest, read_json, sha256_file, write_json

try:
    import fcntl
except ImportError:  # Windows, where abandoned files are left to `bench cache clear`
    fcntl = None  # type: ignore[assignment]

SCHEMA = 1
MANIFEST = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}\.json")
ABANDONED = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}\.npy(\.partial)?")


class Damaged(Exception):
    """A shard that must not be read; its message says why."""


@dataclass(frozen=True)
class Shard:
    """A checked shard: the float16 array ``shape`` at ``offset``, whose row ``i`` belongs to ``paths[i]``."""

    data: Path
    paths: tuple[str, ...]
    shape: tuple[int, ...]
    offset: int

    def read_into(self, file: FileIO, first: int, rows: np.ndarray) -> None:
        """Fill ``rows`` (contiguous, n x ...) with rows from ``first`` on. Raises Damaged if cut short."""
        left = rows.reshape(-1).data.cast("B")
        file.seek(self.offset + first * rows[0].nbytes)
        while len(left):
            count = file.readinto(left)
            if not count:
                raise Damaged(f"{self.data} ends early")
            left = left[count:]


def open_shard(manifest: Path, deep: bool = False) -> Shard:
    """Check a shard against its manifest and return it.

    The data file's size must match; where its time of change does not, or with ``deep``, its SHA-256 must. A
    copied store therefore passes, at the price of one read. Raises Damaged.
    """
    data = manifest.with_suffix(".npy")
    try:
        about = read_json(manifest)
        paths, shape = tuple(about["paths"]), tuple(about["shape"])
        intact = (
            about["schema"] == SCHEMA and shard_id(paths) == manifest.name[:16] and shape[0] == len(paths)
        )
        stat = data.stat()
    # other I/O errors prove nothing
    except (FileNotFoundError, ValueError, KeyError, TypeError, IndexError) as error:
        raise Damaged(f"{type(error).__name__}: {error}") from error
    if not intact:
        raise Damaged("the manifest contradicts itself or has another schema")
    if stat.st_size != about["bytes"]:
        raise Damaged(f"{stat.st_size} bytes instead of {about['bytes']}")
    if deep or stat.st_mtime_ns != about["mtime_ns"]:
        if sha256_file(data) != about["sha256"]:
            raise Damaged("the content does not match its SHA-256")
        if stat.st_mtime_ns != about["mtime_ns"] and os.access(manifest.parent, os.W_OK):
            # spares the next opening the hashing
            write_json(manifest, {**about, "mtime_ns": stat.st_mtime_ns})
    return Shard(data, paths, shape, about["offset"])


def shard_id(paths: Sequence[str]) -> str:
    """The first 16 hex digits of the item list's digest."""
    return digest(list(paths))[:16]


def try_lock(file: IO[bytes]) -> None:
    """Take an open file's advisory lock, which ends with its process. Raises OSError where it cannot be."""
    if fcntl:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sweep(folder: Path, now: float, age: float = 60.0) -> None:
    """Delete what killed writers left: data without a manifest, ``age`` seconds old, locked by nobody."""
    for file in folder.iterdir() if fcntl and folder.is_dir() else ():
        with suppress(OSError):  # locked by a living writer, or just gone: not ours to delete
            if ABANDONED.fullmatch(file.name) and now - file.stat().st_mtime > age and not _vouched(file):
                with file.open("rb") as handle:
                    try_lock(handle)
                    if not _vouched(file):
                        file.unlink()


def _vouched(file: Path) -> bool:
    return file.suffix == ".npy" and file.with_suffix(".json").exists()
