"""Place packed predictions in columns: for every test set one array (n images, evaluations)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, count
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from bench.files import digest
from bench.records.types import EvaluationRecord, Record

Place = tuple[str, Annotated[int, Meta(ge=0, le=2**62)]]  # array, column
Top1 = tuple[NDArray[Any], NDArray[Any]]  # predicted classes and labels, (n,) each


def append(
    arrays: dict[str, NDArray[Any]],
    named: Mapping[str, int],
    records: Mapping[str, Record],
    top1: Mapping[str, Top1],
) -> dict[str, Place]:
    """Add predictions to the arrays of their test sets, and return their places by path.

    ``named``: by array, the last column that a line names already. If an array lacks that column, the
    predictions go to another array, so that the line does not get those of another record.
    """
    runs: dict[str, list[str]] = {}
    for at in sorted(top1):
        record, (classes, labels) = records[at], top1[at]
        assert isinstance(record, EvaluationRecord)
        runs.setdefault(f"{record.target}-{digest([len(classes), labels.tolist()])[:8]}", []).append(at)
    spots: dict[str, Place] = {}
    for test_set, those in runs.items():
        labels = top1[those[0]][1]
        fresh = np.empty((len(labels), 0), np.uint8)
        for name in chain([test_set], (f"{test_set}-{number}" for number in count(2))):
            columns, its_labels = arrays.get(name, fresh), arrays.get(f"{name}-labels", labels)
            whole = columns.ndim == 2 and len(columns) == len(labels) and named.get(name, -1) < width(columns)
            if whole and np.array_equal(its_labels, labels):
                break
        stacked = np.concatenate([columns, np.stack([top1[at][0] for at in those], 1)], 1)
        kind = np.uint8 if max(stacked.max(initial=0), labels.max(initial=0)) < 256 else np.uint16
        arrays[name], arrays[f"{name}-labels"] = stacked.astype(kind), labels.astype(kind)
        spots |= {at: (name, width(columns) + i) for i, at in enumerate(those)}
    return spots


def width(classes: NDArray[Any]) -> int:
    """Return the number of columns, 0 for an array that has none."""
    return int(classes.shape[1]) if classes.ndim == 2 else 0
