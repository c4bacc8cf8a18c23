"""Count from stored predictions which images are right, and compare the counts with their record.

Every recorded accuracy is checked here, image by image, before it is printed.

Legend: n test images, C evaluations whose predictions are columns of one packed array.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.files import Stamp, stamp_if_there
from bench.records import codec
from bench.records.types import EvaluationRecord
from bench.unpack import GIB, Torn, npz

_TOP = 5
_ROUNDING = 1e-9
_HEADERS = 4096  # most bytes of the headers of an npz file's arrays


class Outcome(NamedTuple):
    """The counts from the predictions for n images.

    ``sums``: the checksum of each array by name. ``shares``: the accuracies by name (``top1``, ``top5``).
    ``bits``: which images are right, eight images in a byte, because the outcomes of all evaluations of a
    folder are held in memory at once.
    """

    sums: Mapping[str, str]
    shares: Mapping[str, float]
    n: int
    bits: bytes

    @property
    def right(self) -> NDArray[np.bool_]:
        """Return which images are right (n,)."""
        return np.unpackbits(np.frombuffer(self.bits, np.uint8), count=self.n).astype(bool)


def _arrays(file: Path, n: int, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Return the arrays of an evaluation's own file.

    Raises Torn if the file is damaged, or larger than predictions for n images can be.
    """
    read = npz(file, names, min(GIB, 2 * n * (_TOP + 2) + _HEADERS))
    for name, x in read.items():
        if not _of_classes(x) or x.shape != ((n, _TOP) if name == "top5" else (n,)):
            raise Torn(f"{file}: damaged ({name} is not of {n} images)")
    return read


def of_file(file: Path, record: EvaluationRecord) -> Outcome:
    """Return the outcome of an evaluation by its own file. Raises Torn if the file is damaged."""
    names = ("top1", "labels") if record.imported else ("top1", "top5", "labels")
    return _of_file(file, stamp_if_there(file), record.n, names)


@lru_cache(maxsize=65536)
def _of_file(file: Path, stamped: Stamp | None, n: int, names: tuple[str, ...]) -> Outcome:
    arrays = _arrays(file, n, names)
    top1, top5, labels = arrays["top1"], arrays.get("top5"), arrays["labels"]
    right = top1 == labels
    shares = {"top1": float(right.mean())}
    if top5 is not None:
        if not np.array_equal(top5[:, 0], top1):
            raise Torn(f"{file}: damaged (top5 does not begin with top1)")
        shares["top5"] = float((top5 == labels[:, None]).any(1).mean())
    sums = {name: codec.checksum_of(x) for name, x in arrays.items()}
    return Outcome(sums, shares, len(right), np.packbits(right).tobytes())


def of_columns(top1: NDArray[Any], labels: NDArray[Any]) -> list[Outcome]:
    """Return the outcome of each column of packed predictions (n, C), with labels (n,).

    Raises ValueError if the arrays are not of this shape, or hold no numbers of classes.
    """
    if top1.ndim != 2 or labels.shape != top1.shape[:1] or not len(labels):
        raise ValueError("not a row an image, a column an evaluation")
    if not _of_classes(top1) or not _of_classes(labels):
        raise ValueError("not numbers of classes")
    right = np.ascontiguousarray((top1 == labels[:, None]).T)
    shares = right.mean(1)
    bits = np.packbits(right, axis=1)
    columns = np.ascontiguousarray(top1.T, "<u2")  # as checksum_of takes them, made once for all
    of_labels = codec.checksum_of(labels)
    return [
        Outcome(
            {"top1": codec.checksum_of(column), "labels": of_labels},
            {"top1": float(shares[i])},
            len(labels),
            bits[i].tobytes(),
        )
        for i, column in enumerate(columns)
    ]


def fault(record: EvaluationRecord, outcome: Outcome) -> str:
    """Return why predictions do not belong to a record, or "" if they do and give its numbers."""
    if record.n != outcome.n:
        return f"they are of {outcome.n} images, it says {record.n}"
    other = [name for name, told in record.predictions.items() if outcome.sums.get(name, told) != told]
    if other:
        return f"{' and '.join(other)} differ"
    for name, share in outcome.shares.items():
        told = getattr(record, name)
        if abs(share - told) > _ROUNDING:
            return f"they give a {name} accuracy of {share:.4f}, it says {told:.4f}"
    return ""


def _of_classes(x: NDArray[Any]) -> bool:
    return x.dtype in (np.uint8, np.uint16)
