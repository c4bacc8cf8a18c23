"""The best method of a table column, and those that the data do not tell from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from bench.stats.intervals import Interval, average_interval, p_value
from bench.stats.paired import average_difference_interval
from bench.stats.ranks import holm


@dataclass(frozen=True)
class Mark:
    """`best`: highest mean. `tied`: paired difference to it not significant after Holm in the column."""

    interval: Interval
    best: bool
    tied: bool
    to_best: Interval | None  # this method - best; None for the best itself
    p_holm: float


def column_marks(column: Mapping[str, Sequence[ArrayLike]], level: float = 0.95) -> dict[str, Mark]:
    """Marks for one column: method -> its correctness arrays (S, n), one per dataset in the same order.

    The first of equal means is the best; the others are then tied with a difference of 0. The best is picked
    from the same data, so a tie says "not told apart", never "equal". ValueError when methods lack datasets,
    images or seeds.
    """
    if not column:
        raise ValueError("a column needs at least one method")
    if len({len(cells) for cells in column.values()}) > 1:
        raise ValueError("every method of a column needs the same datasets")
    own = {name: average_interval(cells, level) for name, cells in column.items()}
    best = max(own, key=lambda name: own[name].estimate)
    rest = [name for name in column if name != best]
    to_best = {
        name: average_difference_interval(list(zip(column[name], column[best], strict=True)), level)
        for name in rest
    }
    adjusted = dict(zip(rest, holm([p_value(to_best[name]) for name in rest]), strict=True))
    marks = {best: Mark(own[best], True, False, None, 1.0)}
    for name in rest:
        p = float(adjusted[name])
        marks[name] = Mark(own[name], False, p > 1 - level, to_best[name], p)
    return {name: marks[name] for name in column}
