"""Compute intervals for a mean accuracy, of one cell or averaged over datasets (fractions).

The variance, and how far an interval reaches, are those of bench.stats.variance.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from bench.stats.variance import Parts, half_width, p_of, pool, source_parts, table

SHARES = (0.0, 1.0)  # the bounds of an accuracy


@dataclass(frozen=True)
class Interval:
    """An interval around an estimate, at `level`, cut to the values that are possible, in fractions.

    `varies` names what a repetition would draw anew: ("seeds", "images"), or ("images",) if a cell has one
    seed. Then the interval says nothing about other seeds. `parts`: the variance behind it.
    """

    estimate: float
    low: float
    high: float
    varies: tuple[str, ...]
    parts: Parts
    level: float = 0.95

    @property
    def se(self) -> float:
        """Return the standard error."""
        return float(np.sqrt(self.parts.seeds + self.parts.images))

    def contains(self, value: float) -> bool:
        """Return whether a value lies in the interval."""
        return self.low <= value <= self.high


def mean_interval(outcomes: ArrayLike, level: float = 0.95, bounds: tuple[float, float] = SHARES) -> Interval:
    """Return the interval for the mean of one cell.

    `outcomes` is (S, n), or (n,) for one seed. Raises ValueError for other shapes.
    """
    return average_interval([outcomes], level, bounds)


def lowered(interval: Interval, by: float, least: float = 0.0) -> Interval:
    """Return an interval whose lower end reaches further down, at most to `least`.

    Chance may raise an estimate on average, as it raises a calibration error: with few images the printed
    number then is above the true one. With `by`, the expected excess, the interval contains both the true
    value and what other images would print. Its lower end is `by` below that of the symmetric interval,
    because Wilson's never contains 0. Without an excess the interval stays as it is. Raises ValueError for a
    negative or infinite excess.
    """
    if not 0 <= by < np.inf:
        raise ValueError(f"an interval is lowered by a finite number from 0 on, not by {by}")
    if by == 0:
        return interval
    low = float(interval.estimate - half_width(interval.parts, interval.level)) - by
    return replace(interval, low=min(interval.low, max(least, low)))


def corrected(interval: Interval, by: float, wider: float = 1.0) -> Interval:
    """Return the interval of an accuracy from which a known excess is taken, in Wilson's form.

    `by`: how much too high the estimate is on average, which may be negative. The new estimate stays between
    0 and 1. `wider` multiplies the standard error. Raises ValueError for an infinite excess or a factor that
    is not positive.
    """
    if not (np.isfinite(by) and 0 < wider < np.inf):
        raise ValueError(f"a correction is a finite number and a positive factor, not {by} and {wider}")
    p = interval.parts
    parts = p._replace(
        estimate=np.clip(p.estimate - by, *SHARES), seeds=p.seeds * wider**2, images=p.images * wider**2
    )
    low, high = _ends(parts, half_width(parts, interval.level), SHARES)
    return Interval(float(parts.estimate), float(low), float(high), interval.varies, parts, interval.level)


def average_interval(
    cells: Sequence[ArrayLike],
    level: float = 0.95,
    bounds: tuple[float, float] = SHARES,
    sources: Sequence[Hashable] | None = None,
) -> Interval:
    """Return the interval for the unweighted average over test sets; each cell is (S_d, n_d).

    `sources` has a label for each cell. Cells of one label are scored with the same fits, so they share the
    effects of their seeds. Without it every cell has fits of its own. The choice of test sets adds no
    variance. Raises ValueError if the cells of one source have different numbers of seeds.
    """
    return average_intervals([cells], level, bounds, sources)[0]


def average_intervals(
    rows: Sequence[Sequence[ArrayLike]],
    level: float = 0.95,
    bounds: tuple[float, float] = SHARES,
    sources: Sequence[Hashable] | None = None,
) -> list[Interval]:
    """Return ``average_interval`` of each row of cells, computing tables of one shape together.

    Every row has the same test sets in the same order. Raises ValueError for a level outside (0, 1) or for
    tables of more than two axes.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is a probability between 0 and 1, not {level}")
    by_source, weights, arrays = parts_by_source(rows, level, sources)
    parts = pool(by_source, weights)
    low, high = _ends(parts, half_width(parts, level), bounds)
    return intervals_of(parts, low, high, arrays, level)


def intervals_of(
    parts: Parts,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    rows: Sequence[Sequence[NDArray[Any]]],
    level: float,
) -> list[Interval]:
    """Return an interval for each row of tables, from arrays of the parts and of the ends."""
    return [
        Interval(
            float(parts.estimate[i]),
            float(low[i]),
            float(high[i]),
            ("seeds", "images") if all(len(one) > 1 for one in tables) else ("images",),
            Parts(*(kind[i] for kind in parts)),
            level,
        )
        for i, tables in enumerate(rows)
    ]


def parts_by_source(
    rows: Sequence[Sequence[ArrayLike]], level: float, sources: Sequence[Hashable] | None
) -> tuple[list[Parts], list[float], list[list[NDArray[Any]]]]:
    """Return the parts of each source (arrays with a place for each row), its weight, and the tables.

    The weight is the source's share of all test sets.
    """
    arrays = [[table(cell) for cell in cells] for cells in rows]
    if any(a.ndim != 2 for cells in arrays for a in cells):
        raise ValueError("an interval takes one table of (seeds, images) per dataset")
    number = len(arrays[0])
    labels: Sequence[Hashable] = range(number) if sources is None else sources
    places: dict[Hashable, list[int]] = {}
    for i, label in zip(range(number), labels, strict=True):
        places.setdefault(label, []).append(i)
    parts = [_together([[cells[i] for i in some] for cells in arrays], level) for some in places.values()]
    return parts, [len(some) / number for some in places.values()], arrays


def _together(rows: Sequence[Sequence[NDArray[Any]]], level: float) -> Parts:
    """Return the variance parts of one source for several rows, as arrays with a place for each row."""
    shapes: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for i, tables in enumerate(rows):
        shapes.setdefault(tuple(one.shape for one in tables), []).append(i)
    found = [
        source_parts([np.stack(same) for same in zip(*(rows[i] for i in places), strict=True)], level)
        for places in shapes.values()
    ]
    order = np.argsort([i for places in shapes.values() for i in places])
    return Parts(*(np.concatenate(kind)[order] for kind in zip(*found, strict=True)))


def _ends(
    parts: Parts, reach: NDArray[np.float64], bounds: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lower and upper ends of intervals.

    For accuracies they are Wilson's (1927), at the effective number of images: the number at which a share of
    this size has this variance. Near 0 and 100 % a symmetric interval is too short on the inner side. A row
    of equal outcomes keeps the exact interval of its image part.
    """
    mean = parts.estimate
    low, high = mean - reach, mean + reach
    if bounds == SHARES:
        spread = mean * (1 - mean)
        # t^2 / n, with the effective n = mean (1 - mean) / variance and reach^2 = t^2 variance
        ratio = np.divide(reach**2, spread, out=np.zeros_like(mean), where=spread > 1e-12)
        centre = (mean + ratio / 2) / (1 + ratio)
        half = np.sqrt(spread * ratio + ratio**2 / 4) / (1 + ratio)
        low, high = np.where(ratio > 0, centre - half, low), np.where(ratio > 0, centre + half, high)
    return np.maximum(bounds[0], low), np.minimum(bounds[1], high)


def dataset_interval(
    values: ArrayLike, level: float = 0.95, bounds: tuple[float, float] = (-1.0, 1.0)
) -> Interval:
    """Return the interval for a mean over datasets, where the datasets are the sample.

    `values` (D,) has one number per dataset, such as the difference of two methods. The interval is Student's
    t with D - 1 degrees of freedom, cut to `bounds`. Raises ValueError for fewer than two datasets.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2 or not np.isfinite(x).all():
        raise ValueError("an interval over datasets needs one finite number for each of two or more datasets")
    # The datasets take the place of the images: they are what a repetition draws anew.
    parts = Parts(*map(np.asarray, (x.mean(), 0.0, x.var(ddof=1) / len(x), 0.0, len(x) - 1.0)))
    reach = float(half_width(parts, level))
    mean = float(x.mean())
    low, high = max(bounds[0], mean - reach), min(bounds[1], mean + reach)
    return Interval(mean, low, high, ("datasets",), parts, level)


def p_value(interval: Interval, value: float = 0.0) -> float:
    """Return the two-sided p of "the true mean is `value`".

    It is below 1 - level exactly if the uncut symmetric interval excludes the value.
    """
    return float(p_of(interval.parts, value))


def resolvable(interval: Interval, power: float = 0.8, rows: int = 1) -> float:
    """Return the smallest true difference that the seeds and images behind `interval` tell from 0.

    `power` is the probability that a repetition tells it, on average over what this data may have shown of
    the variance. `rows` is the number of differences that are tested together: each is then tested at
    (1 - level) / rows, as in the first step of Holm's correction. Raises ValueError for a power outside
    (0, 1).
    """
    if not 0 < power < 1:
        raise ValueError(f"power is a probability between 0 and 1, not {power}")
    tail = (1 - interval.level) / rows / 2
    p = interval.parts
    square = _resolving(_rounded(p.images_df), tail, power) ** 2 * float(p.images)
    if p.seeds > 0:
        square += _resolving(_rounded(p.seeds_df), tail, power) ** 2 * float(p.seeds)
    return float(np.sqrt(square))


def _rounded(df: NDArray[np.float64]) -> float:
    """Return degrees of freedom to two digits, so that few multipliers are computed."""
    return float(f"{max(float(df), 1.0):.2g}")


@lru_cache(maxsize=512)
def _resolving(df: float, tail: float, power: float) -> float:
    """Return how many standard errors, estimated with `df` degrees, a difference needs to be resolved.

    The standard error of this data and that of the repetition are estimated independently. Their quantiles
    are gone through in pairs.
    """
    t = -float(special.stdtrit(df, tail))
    if df > 1000:
        return t + float(special.ndtri(power))
    seen = np.sqrt(special.chdtri(df, (np.arange(200) + 0.5) / 200) / df)  # in units of the true one

    def found(c: float) -> float:
        return float(special.ndtr(c * seen[:, None] - t * seen[None, :]).mean())

    low, high = 0.0, t + 3.0
    while found(high) < power:
        low, high = high, 2 * high
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if found(middle) < power else (low, middle)
    return high
