"""Write and read what packed evaluations keep of each image beside their predictions: ``outputs.npz``.

``bench pack --keep-outputs`` writes the file beside the packed records (bench.records.packed). It holds the
arrays of one evaluation after the other, by the path of the record below ``runs/`` and the array's name:
``pocket-rn/emoji/safe/<fit>-<evaluation>/logp``. The records name the arrays and hold their checksums.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from bench.records.codec import Unreadable
from bench.records.types import EvaluationRecord, Failure, Record
from bench.unpack import Torn, npz

FILE = "outputs.npz"
Arrays = Mapping[str, NDArray[Any]]
_PREDICTIONS = ("top1", "labels")  # they lie in predictions.npz


def archive(arrays: Arrays) -> bytes:
    """Return the bytes of a compressed npz file; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, x in arrays.items():
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


def kept(folder: Path, at: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Return the arrays in the file of a folder that belong to the records at these paths, by name there."""
    stems = {_stem(one) for one in at}
    found: dict[str, NDArray[Any]] = {}
    with suppress(Torn, FileNotFoundError):
        found = npz(folder / FILE)
    return {name: x for name, x in found.items() if name.rpartition("/")[0] in stems}


def read(file: Path, at: str, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Return the named arrays of one evaluation. Raises Unreadable if they are gone or damaged."""
    try:
        found = npz(file, [f"{_stem(at)}/{name}" for name in names])
    except FileNotFoundError as error:
        raise Unreadable(f"{file}: the outputs are gone; copy the file again from where it came") from error
    except Torn as error:
        raise Unreadable(f"{error}: not readable outputs; copy the file again from where it came") from error
    return {name.rpartition("/")[2]: x for name, x in found.items()}


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
