"""Write one shard of a feature set, each row in its place as it arrives. This module imports no torch."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np

from bench.features.key import FeatureKey
from bench.features.shard import DTYPE, SCHEMA, Manifest, shard_id
from bench.files import lock, sha256_file, write_bytes


class ShardWriter:
    """A context manager that writes one shard, and makes it visible if its block ends without an error.

    After an error no trace of it stays. Rows go to their place in the file as they arrive. Plain writes are
    used instead of a writable memory map, because a map's pages count as this process's memory, and a full
    disk would kill the process instead of raising an error.
    """

    images_per_second: float | None = None  # the encoder sets it, and the manifest keeps it

    def __init__(self, folder: Path, paths: Sequence[str], key: FeatureKey) -> None:
        self.paths, self._key = tuple(paths), key
        # Each writer has its own files, so that two processes that encode the same images cannot mix them.
        self._data = folder / f"{shard_id(self.paths)}-{uuid.uuid4().hex[:8]}.npy"
        self._partial = self._data.with_name(self._data.name + ".partial")
        self._written = np.zeros(len(self.paths), bool)
        self._row_shape: tuple[int, ...] | None = None
        self._offset = self._next = 0
        self._hash: Any = hashlib.sha256()

    def __enter__(self) -> Self:
        self._data.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self._file = self._partial.open("xb")
            # On a file system without locks, abandoned files are left to `bench cache clear`.
            with suppress(OSError):
                lock(self._file)
            if os.fstat(self._file.fileno()).st_nlink:
                return self
            self._file.close()  # another process deleted the file before it was locked, so try again

    def write(self, start: int, rows: np.ndarray) -> None:
        """Write ``rows`` (n, ...) as float16 from row ``start`` on.

        The first call fixes the shape of a row.
        """
        rows = np.ascontiguousarray(rows, np.float16)
        if self._row_shape is None:
            self._row_shape = rows.shape[1:]
            self._header()
        assert rows.shape[1:] == self._row_shape and start + len(rows) <= len(self.paths), (
            "rows of another shape"
        )
        flat = rows.reshape(-1).data.cast("B")
        if start == self._next and self._hash:
            self._hash.update(flat)
            self._next = start + len(rows)
        else:
            self._hash = None  # rows came out of order, so the whole file is hashed at the end
        self._file.seek(self._offset + start * (rows.nbytes // max(1, len(rows))))
        self._file.write(flat)
        self._written[start : start + len(rows)] = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self._file.close()
            self._partial.unlink(missing_ok=True)

    def _header(self) -> None:
        """Write the header of the ``.npy`` file."""
        described = {
            "descr": "<f2",
            "fortran_order": False,
            "shape": (len(self.paths), *(self._row_shape or ())),
        }
        np.lib.format.write_array_header_1_0(self._file, described)
        self._offset = self._file.tell()
        self._file.flush()
        self._hash.update(self._partial.read_bytes())

    def _commit(self) -> None:
        """Move the data to its final name, and then write the manifest."""
        assert self._row_shape is not None and self._written.all(), (
            "a shard was left before all its rows were written"
        )
        self._file.flush()
        os.fsync(self._file.fileno())
        stat = os.fstat(self._file.fileno())
        if os.name == "nt":
            self._file.close()  # Windows does not rename an open file
        about = Manifest(
            schema=SCHEMA,
            key=self._key,
            shape=(len(self.paths), *self._row_shape),
            dtype=DTYPE,
            offset=self._offset,
            bytes=stat.st_size,
            sha256=self._hash.hexdigest() if self._hash else sha256_file(self._partial),
            images_per_second=self.images_per_second,
            paths=self.paths,
        )
        os.replace(self._partial, self._data)
        write_bytes(
            self._data.with_suffix(".json"), msgspec.json.format(msgspec.json.encode(about), indent=1)
        )
