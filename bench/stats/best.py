"""Find the best method of a table column, and those that the data cannot tell from it.

The best of k methods is picked from the same data, so its lead over the others is partly luck. The critical
value therefore is Tukey's, the studentised range of k means, in place of Student's t:

    half-width^2 = (q(k, df) / sqrt 2)^2 x seed part + (q(k, n - 1) / sqrt 2)^2 x image part

With S seeds the seed part of one difference has S - 1 degrees of freedom. Among many differences some seed
parts come out far too small by chance, and these decide. So the seed part of a difference is at least the
mean of the seed parts in its column, which leaves df = 2 (S - 1) (k - 1) / k. For two methods the rule is the
paired interval. In simulations at most 5 of 100 columns of equally good methods leave one of them unmarked
(tests/stats/test_error_rates.py).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from bench.stats.intervals import SHARES, Interval, average_intervals, intervals_of, parts_by_source
from bench.stats.paired import difference, difference_bounds
from bench.stats.variance import pool, table

LEVEL = 0.95  # the level of the stored critical values


@dataclass(frozen=True)
class Mark:
    """The standing of one method in a column.

    `interval`: the interval of its own mean. `best`: whether its mean is the best. `tied`: whether the
    data cannot tell it from the best. `to_best`: the simultaneous interval of this method - best, None for
    the best itself. A method is tied exactly if this interval contains 0.
    """

    interval: Interval
    best: bool
    tied: bool
    to_best: Interval | None


def column_marks(
    column: Mapping[str, Sequence[ArrayLike]],
    sources: Sequence[Hashable] | None = None,
    bounds: tuple[float, float] = SHARES,
    lower_is_better: bool = False,
) -> dict[str, Mark]:
    """Return a mark for each method of a column, at 95 %.

    `column` maps a method to its correctness arrays (S, n), one per test set in the same order, or to the
    values of another metric, whose means lie in `bounds`. `lower_is_better` makes the lowest mean the best,
    as for the calibration error. `sources` labels test sets that are scored with the same fits, as in
    ``average_interval``. The first of equal means is the best; the others are then tied with a difference of
    0. A tie means "cannot be told apart", never "equal". Raises ValueError if methods lack test sets, images
    or seeds.
    """
    _checked(column)
    intervals = average_intervals(list(column.values()), LEVEL, bounds, sources)
    own = dict(zip(column, intervals, strict=True))
    best = _best({name: interval.estimate for name, interval in own.items()}, lower_is_better)
    marks = {best: Mark(own[best], True, False, None)}
    for name, interval in _to_best(column, best, sources, bounds).items():
        marks[name] = Mark(own[name], False, interval.contains(0.0), interval)
    return {name: marks[name] for name in column}


def not_told_from_best(
    column: Mapping[str, Sequence[ArrayLike]],
    sources: Sequence[Hashable] | None = None,
    bounds: tuple[float, float] = SHARES,
    lower_is_better: bool = False,
) -> set[str]:
    """Return the methods of a column that ``column_marks`` ties with the best.

    The arguments are the same. It is faster, because methods need no intervals of their own.
    """
    _checked(column)
    means = {name: float(np.mean([table(c).mean() for c in cells])) for name, cells in column.items()}
    to_best = _to_best(column, _best(means, lower_is_better), sources, bounds)
    return {name for name, interval in to_best.items() if interval.contains(0.0)}


def _best(means: Mapping[str, float], lower_is_better: bool) -> str:
    """Return the first name of the best mean."""
    return (min if lower_is_better else max)(means, key=lambda name: means[name])


def critical_value(methods: int, df: ArrayLike) -> NDArray[np.float64]:
    """Return the 95 % point of the studentised range of `methods` means, over sqrt 2.

    It takes the place of Student's t where the best of several methods is compared with the others. Stored
    values are interpolated, the logarithm over 1 / df. Raises ValueError for fewer than two methods.
    """
    if methods < 2:
        raise ValueError("a critical value for the best needs at least two methods")
    counts, degrees, points = _points()
    at = 1 / np.maximum(np.asarray(df, dtype=np.float64), degrees[0])
    if methods > counts[-1]:  # Bonferroni's bound over all pairs is a little wider, and needs no table
        tail = (1 - LEVEL) / (methods * (methods - 1))
        return np.asarray(-special.stdtrit(1 / np.maximum(at, 1e-9), tail))
    above = int(np.searchsorted(counts, methods))
    rows = [above] if counts[above] == methods else [above - 1, above]
    of_rows = [np.interp(at, 1 / degrees[::-1], np.log(points[row, ::-1])) for row in rows]
    share = np.log(methods / counts[rows[0]]) / np.log(counts[above] / counts[rows[0]]) if rows[1:] else 0.0
    return np.asarray(np.exp(of_rows[0] + share * (of_rows[-1] - of_rows[0])) / np.sqrt(2))


@cache
def _points() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the stored numbers of methods, degrees of freedom, and points of the studentised range."""
    lines = (resources.files("bench.stats") / "studentised_range.csv").read_text().split()
    rows = np.array([[float(x) for x in line.split(",")] for line in lines[1:]])
    return rows[:, 0], np.array([float(x) for x in lines[0].split(",")[1:]]), rows[:, 1:]


def _checked(column: Mapping[str, Sequence[ArrayLike]]) -> None:
    if not column:
        raise ValueError("a column needs at least one method")
    if len({len(cells) for cells in column.values()}) > 1:
        raise ValueError("every method of a column needs the same datasets")


def _to_best(
    column: Mapping[str, Sequence[ArrayLike]],
    best: str,
    sources: Sequence[Hashable] | None,
    bounds: tuple[float, float],
) -> dict[str, Interval]:
    """Return the simultaneous interval of each other method's difference to the best."""
    rest = [name for name in column if name != best]
    if not rest:
        return {}
    gaps = [[difference(a, b) for a, b in zip(column[name], column[best], strict=True)] for name in rest]
    found, weights, tables = parts_by_source(gaps, LEVEL, sources)
    k = len(column)
    shared = [
        p._replace(seeds=np.maximum(p.seeds, p.seeds.mean()), seeds_df=p.seeds_df * 2 * (k - 1) / k)
        for p in found
    ]
    parts = pool(shared, weights)
    reach = np.sqrt(
        critical_value(k, parts.seeds_df) ** 2 * parts.seeds
        + critical_value(k, parts.images_df) ** 2 * parts.images
    )
    lowest, highest = difference_bounds(bounds)
    low, high = np.maximum(lowest, parts.estimate - reach), np.minimum(highest, parts.estimate + reach)
    return dict(zip(rest, intervals_of(parts, low, high, tables, LEVEL), strict=True))
