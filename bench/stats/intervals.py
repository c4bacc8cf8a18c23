"""Compute intervals for a mean accuracy, of one cell or averaged over datasets (fractions).

The variance and the degrees of freedom are those of bench.stats.variance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from bench.stats.variance import Parts, joint_df, mean_parts, pool, table


@dataclass(frozen=True)
class Interval:
    """An interval: estimate +- t(df) x se at `level`, cut to the values that are possible, in fractions.

    `varies` names what a repetition would draw anew: ("seeds", "images"), or ("images",) for one seed, which
    says nothing about other seeds.
    """

    estimate: float
    low: float
    high: float
    df: float
    varies: tuple[str, ...]
    se: float
    level: float = 0.95

    def contains(self, value: float) -> bool:
        """Return whether a value lies in the interval."""
        return self.low <= value <= self.high


def mean_interval(
    outcomes: ArrayLike, level: float = 0.95, bounds: tuple[float, float] = (0.0, 1.0)
) -> Interval:
    """Return the interval for the mean of one cell.

    `outcomes` is (S, n), or (n,) for one seed. Raises ValueError for other shapes.
    """
    return average_interval([outcomes], level, bounds)


def average_interval(
    cells: Sequence[ArrayLike], level: float = 0.95, bounds: tuple[float, float] = (0.0, 1.0)
) -> Interval:
    """Return the interval for the unweighted average over datasets; each cell is (S_d, n_d).

    Datasets may differ in their numbers of seeds and images. The choice of datasets adds no variance. Seeds
    of different datasets count as independent draws.
    """
    return average_intervals([cells], level, bounds)[0]


def average_intervals(
    rows: Sequence[Sequence[ArrayLike]], level: float = 0.95, bounds: tuple[float, float] = (0.0, 1.0)
) -> list[Interval]:
    """Return ``average_interval`` of each row of cells, computing tables of one shape together.

    Every row has the same datasets in the same order. Raises ValueError for a level outside (0, 1) or for
    tables of more than two axes.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is a probability between 0 and 1, not {level}")
    arrays = [[table(cell) for cell in cells] for cells in rows]
    if any(a.ndim != 2 for cells in arrays for a in cells):
        raise ValueError("an interval takes one table of (seeds, images) per dataset")
    parts = pool([_together(cells, level) for cells in zip(*arrays, strict=True)])
    se, df = np.sqrt(parts.seeds + parts.images), joint_df(parts)
    half = -special.stdtrit(df, (1 - level) / 2) * se
    seeds = [any(len(a) > 1 for a in cells) for cells in arrays]
    return [
        Interval(
            estimate,
            max(bounds[0], estimate - reach),
            min(bounds[1], estimate + reach),
            of_df,
            ("seeds", "images") if several else ("images",),
            of_se,
            level,
        )
        for estimate, reach, of_df, of_se, several in zip(
            parts.estimate.tolist(), half.tolist(), df.tolist(), se.tolist(), seeds, strict=True
        )
    ]


def _together(tables: Sequence[NDArray[Any]], level: float) -> Parts:
    """Return the variance parts of several tables (S, n), as arrays with a place for each table."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for i, one in enumerate(tables):
        shapes.setdefault(one.shape, []).append(i)
    found = [mean_parts(np.stack([tables[i] for i in places]), level) for places in shapes.values()]
    order = np.argsort([i for places in shapes.values() for i in places])
    return Parts(*(np.concatenate(kind)[order] for kind in zip(*found, strict=True)))


def p_value(interval: Interval, value: float = 0.0) -> float:
    """Return the two-sided p of "the true mean is `value`".

    It is below 1 - level exactly if the uncut interval excludes the value.
    """
    distance = abs(interval.estimate - value)
    if interval.se == 0:
        return 1.0 if distance == 0 else 0.0
    return float(2 * special.stdtr(interval.df, -distance / interval.se))


def resolvable(interval: Interval, power: float = 0.8) -> float:
    """Return the smallest true difference that the seeds and images behind `interval` tell from 0.

    `power` is the probability of telling it. Raises ValueError for a power outside (0, 1).
    """
    if not 0 < power < 1:
        raise ValueError(f"power is a probability between 0 and 1, not {power}")
    reach = special.stdtrit(interval.df, power) - special.stdtrit(interval.df, (1 - interval.level) / 2)
    return float(reach * interval.se)
