"""Find the best method of a table column, and those that the data cannot tell from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.stats.intervals import Interval, average_intervals, p_value
from bench.stats.paired import average_difference_intervals
from bench.stats.ranks import holm
from bench.stats.variance import table


@dataclass(frozen=True)
class Mark:
    """The standing of one method in a column.

    `interval`: the interval of its own mean. `best`: whether its mean is the highest. `tied`: whether its
    paired difference to the best is not significant after Holm's correction in the column. `to_best`: the
    interval of this method - best, None for the best itself. `p_holm`: the corrected p-value.
    """

    interval: Interval
    best: bool
    tied: bool
    to_best: Interval | None
    p_holm: float


def column_marks(column: Mapping[str, Sequence[ArrayLike]], level: float = 0.95) -> dict[str, Mark]:
    """Return a mark for each method of a column.

    `column` maps a method to its correctness arrays (S, n), one per dataset in the same order. The first of
    equal means is the best; the others are then tied with a difference of 0. The best is picked from the same
    data, so a tie means "cannot be told apart", never "equal". Raises ValueError if methods lack datasets,
    images or seeds.
    """
    _checked(column)
    own = dict(zip(column, average_intervals(list(column.values()), level), strict=True))
    best = max(own, key=lambda name: own[name].estimate)
    marks = {best: Mark(own[best], True, False, None, 1.0)}
    for name, (interval, p) in _to_best(column, best, level).items():
        marks[name] = Mark(own[name], False, p > 1 - level, interval, p)
    return {name: marks[name] for name in column}


def not_told_from_best(column: Mapping[str, Sequence[ArrayLike]], level: float = 0.95) -> set[str]:
    """Return the methods of a column that ``column_marks`` ties with the best.

    It is faster, because methods need no intervals of their own.
    """
    _checked(column)
    by_dataset = [_means([table(cell) for cell in cells]) for cells in zip(*column.values(), strict=True)]
    best = list(column)[int(np.argmax(np.stack(by_dataset, -1).mean(-1)))]
    return {name for name, (_, p) in _to_best(column, best, level).items() if p > 1 - level}


def _means(tables: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Return the mean of each table (S, n), computing tables of one shape together."""
    means = np.empty(len(tables))
    for shape in {one.shape for one in tables}:
        places = [i for i, one in enumerate(tables) if one.shape == shape]
        means[places] = np.stack([tables[i] for i in places]).mean(-1).mean(-1)
    return means


def _checked(column: Mapping[str, Sequence[ArrayLike]]) -> None:
    if not column:
        raise ValueError("a column needs at least one method")
    if len({len(cells) for cells in column.values()}) > 1:
        raise ValueError("every method of a column needs the same datasets")


def _to_best(
    column: Mapping[str, Sequence[ArrayLike]], best: str, level: float
) -> dict[str, tuple[Interval, float]]:
    """Return the difference of each other method to the best, and its p after Holm's correction."""
    rest = [name for name in column if name != best]
    if not rest:
        return {}
    pairs = [list(zip(column[name], column[best], strict=True)) for name in rest]
    intervals = average_difference_intervals(pairs, level)
    adjusted = holm([p_value(interval) for interval in intervals])
    return dict(zip(rest, zip(intervals, map(float, adjusted), strict=True), strict=True))
