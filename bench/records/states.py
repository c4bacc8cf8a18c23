"""Fitted states on disk: the tensors of a fit, believed only where they are those of its record."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from bench.files import Stamp, stamp_if_there
from bench.records import codec, places
from bench.records.types import FitRecord


def read(results: Path, record: FitRecord) -> bytes | None:
    """The fitted tensors of a recorded fit as a safetensors file; None where they were not kept.

    A file beside a record that says nothing of it is another fit's. Raises Unreadable, naming the file, where
    it is not the one that the record speaks of.
    """
    path = places.state_path(results, record.key)
    if not record.state or not path.is_file():
        return None
    data = path.read_bytes()
    if record.state != codec.checksum_bytes(data):
        raise codec.Unreadable(f"{path}: not the state that the record of its fit speaks of")
    return data


def there(results: Path, record: FitRecord) -> bool:
    """Whether a recorded fit needs no other fit before its state can be read."""
    if not record.has_state:
        return True
    path = places.state_path(results, record.key)
    return bool(record.state) and path.is_file() and _is(path, stamp_if_there(path), record.state)


@lru_cache(maxsize=65536)
def _is(path: Path, stamped: Stamp | None, checksum: str) -> bool:
    """Whether a file has this checksum: many ask of one state, and who reads it looks again."""
    return codec.checksum_bytes(path.read_bytes()) == checksum
