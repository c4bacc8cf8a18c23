"""Intervals for a mean accuracy, of one cell or averaged over datasets (fractions).

The variance and the degrees of freedom are those of bench.stats.variance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from bench.stats.variance import Parts, joint_df, mean_parts, pool, table


@dataclass(frozen=True)
class Interval:
    """estimate +- t(df) x se at `level`, cut to the values that are possible; all in fractions.

    `varies` names what would be drawn anew in a repetition: ("seeds", "images"), or ("images",) for one seed,
    where nothing is said about other seeds.
    """

    estimate: float
    low: float
    high: float
    df: float
    varies: tuple[str, ...]
    se: float
    level: float = 0.95

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high


def mean_interval(
    outcomes: ArrayLike, level: float = 0.95, bounds: tuple[float, float] = (0.0, 1.0)
) -> Interval:
    """Interval for one cell's mean: outcomes (S, n), or (n,) for one seed; ValueError for unusable shapes."""
    return average_interval([outcomes], level, bounds)


def average_interval(
    cells: Sequence[ArrayLike], level: float = 0.95, bounds: tuple[float, float] = (0.0, 1.0)
) -> Interval:
    """Interval for the unweighted average over datasets; each cell is (S_d, n_d).

    Seeds and images may differ in number. Datasets are fixed: their choice adds no variance. Seeds of
    different datasets count as independent draws.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is a probability between 0 and 1, not {level}")
    arrays = [table(c) for c in cells]
    if any(a.ndim != 2 for a in arrays):
        raise ValueError("an interval takes one table of (seeds, images) per dataset")
    parts = pool([mean_parts(a, level) for a in arrays])
    varies = ("seeds", "images") if any(len(a) > 1 for a in arrays) else ("images",)
    return _interval(parts, level, bounds, varies)


def _interval(parts: Parts, level: float, bounds: tuple[float, float], varies: tuple[str, ...]) -> Interval:
    estimate, se, df = (
        float(parts.estimate),
        float(np.sqrt(parts.seeds + parts.images)),
        float(joint_df(parts)),
    )
    half = float(stats.t.isf((1 - level) / 2, df)) * se
    return Interval(
        estimate, max(bounds[0], estimate - half), min(bounds[1], estimate + half), df, varies, se, level
    )


def p_value(interval: Interval, value: float = 0.0) -> float:
    """Two-sided p of "the true mean is `value`": < 1 - level exactly if the uncut interval excludes it."""
    distance = abs(interval.estimate - value)
    if interval.se == 0:
        return 1.0 if distance == 0 else 0.0
    return float(2 * stats.t.sf(distance / interval.se, interval.df))


def resolvable(interval: Interval, power: float = 0.8) -> float:
    """Smallest true difference that the seeds and images behind `interval` tell from 0 with this power."""
    if not 0 < power < 1:
        raise ValueError(f"power is a probability between 0 and 1, not {power}")
    reach = stats.t.isf((1 - interval.level) / 2, interval.df) + stats.t.ppf(power, interval.df)
    return float(reach * interval.se)
