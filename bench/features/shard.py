"""Read one shard of a feature set: a float16 ``.npy`` file that numpy can memory-map, and its JSON manifest.

The manifest holds the SHA-256 of the ``.npy`` file. It is written last, so a file without a manifest is
incomplete and is never read. This module imports no torch.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import msgspec
import numpy as np

from bench import files, typed
from bench.features.key import FeatureKey

SCHEMA = 1
DTYPE = "float16"
MANIFEST = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}\.json")
ABANDONED = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}\.npy(\.partial)?")


class Manifest(msgspec.Struct, frozen=True):
    """The manifest of a shard: the feature set, the rows in the data file, and the file's SHA-256 (hex)."""

    schema: int
    key: FeatureKey
    shape: tuple[int, ...]
    dtype: str
    offset: int
    bytes: int
    sha256: str
    paths: tuple[str, ...]
    images_per_second: float | None = None


class Damaged(Exception):
    """An error: a shard that must not be read. Its message says why."""


@dataclass(frozen=True)
class Shard:
    """A checked shard: the float16 array ``shape`` at ``offset``, whose row ``i`` belongs to ``paths[i]``.

    ``stamp`` is the stamp of its file at the time of the check.
    """

    data: Path
    paths: tuple[str, ...]
    shape: tuple[int, ...]
    offset: int
    stamp: files.Stamp

    def opened(self) -> FileIO:
        """Open its file, which the caller closes. Raises Damaged if it is not the file that was checked."""
        file = FileIO(self.data)
        if files.stamp(file.fileno()) != self.stamp:
            file.close()
            raise Damaged(f"{self.data} was replaced by another file")
        return file

    def read_into(self, file: FileIO, first: int, rows: np.ndarray) -> None:
        """Fill ``rows`` (contiguous, n x ...) with the rows from ``first`` on.

        Raises Damaged if the file is cut short.
        """
        left = rows.reshape(-1).data.cast("B")
        file.seek(self.offset + first * rows[0].nbytes)
        while len(left):
            count = file.readinto(left)
            if not count:
                raise Damaged(f"{self.data} ends early")
            left = left[count:]


def open_shard(manifest: Path, key: FeatureKey) -> Shard:
    """Read a whole shard of the set ``key``, compare it with its manifest, and return it.

    Raises Damaged if its bytes do not have its SHA-256, if the manifest describes the bytes wrongly, or if it
    belongs to another set.
    """
    data = manifest.with_suffix(".npy")
    try:
        about = typed.json(manifest, Manifest)
        with data.open("rb", buffering=0) as file:
            stamp = files.stamp(file.fileno())
            if stamp.size != about.bytes:
                raise Damaged(f"{stamp.size} bytes instead of {about.bytes}")
            whole = hashlib.file_digest(file, "sha256").hexdigest() == about.sha256
            file.seek(0)
            header = _header(file) if whole else None
            if files.stamp(file.fileno()) != stamp:
                raise Damaged("it changed while it was read")
    except FileNotFoundError as error:
        raise Damaged(f"{error.filename} is not there") from error
    except typed.Odd as error:
        raise Damaged(str(error)) from error
    if not whole:
        raise Damaged("the content does not match its SHA-256")
    if about.schema != SCHEMA or about.dtype != DTYPE:
        raise Damaged(
            f"{manifest} has schema {about.schema} and type {about.dtype}, not {SCHEMA} and {DTYPE}"
        )
    if about.key != key:
        raise Damaged(f"{manifest} belongs to another feature set")
    size = about.offset + 2 * math.prod(about.shape)
    if header != (about.offset, about.shape) or size != about.bytes:
        raise Damaged(f"{manifest} states another shape than the file has")
    if shard_id(about.paths) != manifest.name[:16] or about.shape[:1] != (len(about.paths),):
        raise Damaged(f"{manifest} names other images than those it was made for")
    return Shard(data, about.paths, about.shape, about.offset, stamp)


def _header(file: FileIO) -> tuple[int, tuple[int, ...]] | None:
    """Return where the rows of an ``.npy`` file begin, and its shape; None if the file is anything else."""
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            return None
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    except ValueError:
        return None
    return None if by_columns or dtype != np.dtype("<f2") else (file.tell(), shape)


def shard_id(paths: Sequence[str]) -> str:
    """Return the first 16 hex digits of the item list's digest."""
    return files.digest(list(paths))[:16]


def sweep(folder: Path) -> None:
    """Delete what killed writers left: data without a manifest, and temporary files.

    Files that a process locks stay.
    """
    files.sweep(folder, deep=False)
    for file in folder.iterdir() if folder.is_dir() else ():
        if ABANDONED.fullmatch(file.name) and not _vouched(file):
            files.delete_unheld(file, lambda file: not _vouched(file))


def _vouched(file: Path) -> bool:
    """Return whether the data file has a manifest."""
    return file.suffix == ".npy" and file.with_suffix(".json").exists()
