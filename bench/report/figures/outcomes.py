"""Turn rows of records into what bench.stats takes: right or wrong for every seed and test image.

Legend: S seeds, n test images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.report import frame

Outcomes = NDArray[np.bool_]


def stacked(rows: pd.DataFrame) -> Outcomes:
    """Return right or wrong (S, n) of the rows of one cell, in the order of seeds.

    Raises BenchError if seeds were measured on different images.
    """
    return frame.stacked(rows.sort_values("seed")["path"].tolist())


def seeds_of(rows: pd.DataFrame) -> tuple[int, ...]:
    """Return the seeds that rows have, in order."""
    return tuple(sorted(set(rows["seed"].tolist())))


def complete(rows: pd.DataFrame, seeds: set[int]) -> bool:
    """Return whether a cell has a successful record of each of these seeds.

    A mean over the survivors of a failure is never shown.
    """
    return bool(len(rows)) and set(rows[rows["status"] == "ok"]["seed"]) >= seeds


def by_dataset(rows: pd.DataFrame, names: Sequence[str], seeds: set[int]) -> list[Outcomes] | None:
    """Return right or wrong (S, n) on every dataset in order, or None if a seed is missing or failed."""
    good: dict[str, list[tuple[int, str]]] = {}
    columns = (rows[c].tolist() for c in ("dataset", "seed", "path", "status"))
    for name, seed, path, status in zip(*columns, strict=True):
        if status == "ok":
            good.setdefault(name, []).append((seed, path))
    if any(not {seed for seed, _ in good.get(name, ())} >= seeds or name not in good for name in names):
        return None
    return [frame.stacked([path for _, path in sorted(good[name])]) for name in names]
