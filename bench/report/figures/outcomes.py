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
    vectors = [correct(path) for path in rows.sort_values("seed")["path"]]
    if len({len(v) for v in vectors}) > 1:
        raise BenchError(
            f"{rows.iloc[0]['path']}: other seeds were measured on another test set; run the cell again"
        )
    return np.stack(vectors)


def complete(rows: pd.DataFrame, seeds: set[int]) -> bool:
    """Whether a cell has a good record of each of these seeds: a mean over survivors is never shown."""
    return bool(len(rows)) and set(rows[rows["status"] == "ok"]["seed"]) >= seeds


def by_dataset(rows: pd.DataFrame, names: Sequence[str], seeds: set[int]) -> list[Outcomes] | None:
    """(S, n) of every dataset in order, or None where a seed is missing or failed."""
    groups = {name: group for name, group in rows.groupby("dataset")}
    if any(name not in groups or not complete(groups[name], seeds) for name in names):
        return None
    return [stacked(groups[name][groups[name]["status"] == "ok"]) for name in names]
