"""Read the fitted states on disk: the tensors that a fit left.

A state is used only if it has the checksum that the record of its fit names.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from bench.files import Stamp, stamp_if_there
from bench.records import codec, places
from bench.records.types import FitRecord


def read(results: Path, record: FitRecord) -> bytes | None:
    """Return the fitted tensors of a recorded fit as the bytes of a safetensors file; None if not kept.

    If the record names no state, a file in that place belongs to an earlier record and is not read. Raises
    Unreadable, which names the file, if its checksum is not the one in the record.
    """
    path = places.state_path(results, record.key)
    if not record.state or not path.is_file():
        return None
    data = path.read_bytes()
    if record.state != codec.checksum_bytes(data):
        raise codec.Unreadable(f"{path}: not the state that the record of its fit speaks of")
    return data


def there(results: Path, record: FitRecord) -> bool:
    """Return whether the state of a recorded fit can be read, or the fit has none."""
    if not record.has_state:
        return True
    path = places.state_path(results, record.key)
    return bool(record.state) and path.is_file() and _is(path, stamp_if_there(path), record.state)


@lru_cache(maxsize=65536)
def _is(path: Path, stamped: Stamp | None, checksum: str) -> bool:
    """Return whether a file has this checksum.

    The answer is cached, because many cells ask for the same state. ``read`` checks the state again.
    """
    return codec.checksum_bytes(path.read_bytes()) == checksum
