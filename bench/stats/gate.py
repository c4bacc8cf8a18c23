"""Test that a new run is not inferior to an old one on the same images and seeds (fractions)."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.stats.intervals import Interval, resolvable
from bench.stats.paired import Pair, average_difference_interval


@dataclass(frozen=True)
class NonInferiority:
    """The outcome of a test of non-inferiority, in fractions.

    `passed`: whether the one-sided lower bound of new - old is not below -margin. `smallest_drop`: the
    smallest true drop that this many seeds and images tell from no change with the requested power. `enough`:
    whether that drop is within the margin. If it is not, even an unchanged method may well fail, so more
    images are needed.
    """

    interval: Interval
    lower: float
    margin: float
    passed: bool
    smallest_drop: float
    enough: bool


def non_inferiority(
    pairs: Sequence[Pair], margin: float = 0.01, level: float = 0.95, power: float = 0.8
) -> NonInferiority:
    """Test (new, old) correctness arrays, one pair per dataset, averaged over datasets.

    `level` is one-sided: `interval` is the two-sided interval at 2 level - 1, whose lower end is the bound.
    Raises ValueError for a negative margin or a level that is not between 0.5 and 1.
    """
    if margin < 0:
        raise ValueError(f"the margin is the largest drop to accept, at least 0, not {margin}")
    if not 0.5 < level < 1:
        raise ValueError(f"a one-sided level lies between 0.5 and 1, not {level}")
    interval = average_difference_interval(pairs, 2 * level - 1)
    drop = resolvable(interval, power)
    return NonInferiority(interval, interval.low, margin, interval.low >= -margin, drop, drop <= margin)
