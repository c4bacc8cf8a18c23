"""Write and read what packed evaluations keep of each image beside their predictions: ``outputs.npz``.

``bench pack --keep-outputs`` writes the file beside the packed records (bench.records.packed). It holds the
arrays of one evaluation after the other, by the path of the record below ``runs/`` and the array's name:
``pocket-rn/emoji/safe/<fit>-<evaluation>/logp``. The records name the arrays and hold their checksums.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from bench.files import Stamp, stamp_if_there
from bench.records.codec import Unreadable
from bench.records.types import EvaluationRecord, Failure, Record
from bench.unpack import Contents, Torn, contents, npz

FILE = "outputs.npz"
Arrays = Mapping[str, NDArray[Any]]
_PREDICTIONS = ("top1", "labels")  # they lie in predictions.npz
_SOURCE = "copy the file again from where it came"


def archive(parts: Iterable[Arrays]) -> bytes:
    """Return the bytes of a compressed npz file of the arrays of all parts.

    The same arrays give the same bytes. One part at a time is held in memory.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, x in (pair for part in parts for pair in part.items()):
            member = io.BytesIO()
            np.lib.format.write_array(member, x, allow_pickle=False)
            file.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def flat(outputs: Mapping[str, Arrays]) -> dict[str, NDArray[Any]]:
    """Return the arrays of evaluations, by the paths of their records, under their names in the file."""
    return {
        f"{_stem(at)}/{name}": x
        for at in sorted(outputs)
        for name, x in outputs[at].items()
        if name not in _PREDICTIONS
    }


def added(folder: Path, at: Iterable[str], new: Mapping[str, Arrays]) -> bytes | None:
    """Return the file of a folder with the arrays of the records at the paths ``at``, and with ``new`` ones.

    The arrays of one evaluation after the other are copied, whatever they take together. Those of an
    evaluation that are damaged are left out. The result is None if the folder has no file and needs none.
    Raises Unreadable if the list of the file's arrays is damaged and it should hold some that stay.
    """
    file, stems = folder / FILE, {_stem(one) for one in at}
    stamped = stamp_if_there(file)
    if stamped is None:
        return archive([flat(new)]) if new else None
    if not stems:
        return archive([flat(new)])
    return archive(chain(_copied(file, _contents(file, stamped), stems), [flat(new)]))


def _copied(file: Path, listed: Contents, stems: Collection[str]) -> Iterator[Arrays]:
    """Yield the arrays of these evaluations by their names in the file, but not those that are damaged."""
    names: dict[str, list[str]] = {}
    for name in listed:
        if (stem := name.rpartition("/")[0]) in stems:
            names.setdefault(stem, []).append(name)
    for some in names.values():
        with suppress(Torn):
            yield npz(file, some, listed=listed)


def read(file: Path, at: str, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Return the named arrays of one evaluation. Raises Unreadable if they are gone or damaged."""
    stamped = stamp_if_there(file)
    if stamped is None:
        raise Unreadable(f"{file}: the outputs are gone; {_SOURCE}")
    try:
        listed = _contents(file, stamped)
        found = npz(file, [f"{_stem(at)}/{name}" for name in names], listed=listed)
    except Torn as error:
        raise Unreadable(f"{error}: not readable outputs; {_SOURCE}") from error
    return {name.rpartition("/")[2]: x for name, x in found.items()}


@lru_cache(maxsize=4)
def _contents(file: Path, stamped: Stamp) -> Contents:
    """Return the list of the arrays in a file. It has thousands of entries, so it is read once."""
    try:
        return contents(file)
    except Torn as error:
        raise Unreadable(f"{error}: not readable outputs; {_SOURCE}") from error


def for_packing(record: Record, with_outputs: bool) -> Record:
    """Return a record without what is not packed: a traceback, and arrays that are not kept.

    Its metrics and counts by class stay. A traceback shows paths of somebody's machine.
    """
    if isinstance(record, Failure):
        return replace(record, traceback="")
    if isinstance(record, EvaluationRecord):
        outputs = record.outputs if with_outputs else []
        names = (*_PREDICTIONS, *outputs)
        return replace(
            record, outputs=outputs, predictions={k: v for k, v in record.predictions.items() if k in names}
        )
    return record


def _stem(at: str) -> str:
    return at.removesuffix(".json")
