"""From rows of records to what bench.stats takes: right or wrong for every seed and test image.

Legend: S seeds, n test images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.report.frame import correct

Outcomes = NDArray[np.bool_]


def stacked(rows: pd.DataFrame) -> Outcomes:
    """(S, n) of the rows of one cell, in seed order; BenchError where seeds were measured on other images."""
    return _stacked(list(zip(rows["seed"].tolist(), rows["path"].tolist(), strict=True)))


def _stacked(records: Sequence[tuple[int, str]]) -> Outcomes:
    vectors = [correct(path) for _, path in sorted(records, key=lambda record: record[0])]
    if len({len(v) for v in vectors}) > 1:
        raise BenchError(
            f"{records[0][1]}: other seeds were measured on another test set; run the cell again"
        )
    return np.stack(vectors)


def complete(rows: pd.DataFrame, seeds: set[int]) -> bool:
    """Whether a cell has a good record of each of these seeds: a mean over survivors is never shown."""
    return bool(len(rows)) and set(rows[rows["status"] == "ok"]["seed"]) >= seeds


def by_dataset(rows: pd.DataFrame, names: Sequence[str], seeds: set[int]) -> list[Outcomes] | None:
    """(S, n) of every dataset in order, or None where a seed is missing or failed."""
    good: dict[str, list[tuple[int, str]]] = {}
    columns = (rows[c].tolist() for c in ("dataset", "seed", "path", "status"))
    for name, seed, path, status in zip(*columns, strict=True):
        if status == "ok":
            good.setdefault(name, []).append((seed, path))
    if any(not {seed for seed, _ in good.get(name, ())} >= seeds or name not in good for name in names):
        return None
    return [_stacked(good[name]) for name in names]
