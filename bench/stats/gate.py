"""Test whether a new run got worse than an old one on the same images and seeds (fractions).

The statement is about a whole family of groups. The interval of each group is so wide that all of them hold
together, on each side, with the stated probability (Bonferroni's correction). So a family of unchanged groups
is called worse at most as often as 1 - level says, however many groups it has.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bench.stats.intervals import Interval, resolvable
from bench.stats.paired import Pair, average_difference_interval


@dataclass(frozen=True)
class NonInferiority:
    """The outcome of a test of one group, in fractions.

    `interval`: the interval of new - old. `margin`: the largest drop to accept. `smallest_drop`: the smallest
    true drop, the same in every draw, that this test calls worse with probability `power` or more; 1 if
    there is none.
    """

    interval: Interval
    margin: float
    smallest_drop: float
    power: float

    @property
    def outcome(self) -> Literal["held", "worse", "undecided"]:
        """Return what the interval says.

        ``worse``: the whole interval lies below -margin. ``held``: no part of it does. ``undecided``: a part
        of it does, so that the data cannot say.
        """
        if self.interval.high < -self.margin:
            return "worse"
        return "held" if self.interval.low >= -self.margin else "undecided"

    @property
    def passed(self) -> bool:
        """Return whether the interval rules out a drop of more than the margin."""
        return self.outcome == "held"


def non_inferiority(
    pairs: Sequence[Pair],
    margin: float = 0.01,
    level: float = 0.95,
    power: float = 0.8,
    groups: int = 1,
    sources: Sequence[Hashable] | None = None,
) -> NonInferiority:
    """Test (new, old) correctness arrays, one pair per test set, averaged over test sets.

    `level`: the probability, on each side, that the intervals of all `groups` hold together. `sources`:
    labels of test sets that are scored with the same fits, as in ``average_interval``. Raises ValueError for
    a margin outside [0, 1), a level that is not between 0.5 and 1, or fewer than one group.
    """
    if not 0 <= margin < 1:
        raise ValueError(f"the margin is the largest drop to accept, from 0 to below 1, not {margin}")
    if not 0.5 < level < 1:
        raise ValueError(f"a level of one side lies between 0.5 and 1, not {level}")
    if groups < 1:
        raise ValueError(f"a family has at least one group, not {groups}")
    interval = average_difference_interval(pairs, 1 - 2 * (1 - level) / groups, sources)
    drop = _smallest_drop(interval, [np.shape(np.atleast_2d(new)) for new, _ in pairs], margin, power)
    return NonInferiority(interval, margin, drop, power)


def _smallest_drop(
    interval: Interval, shapes: Sequence[tuple[int, ...]], margin: float, power: float
) -> float:
    """Return the smallest true drop whose whole interval lies below -margin with at least this probability.

    A drop brings variance of its own, which an unchanged run does not show: some images are lost and others
    are not. If the same images are lost in every seed, this adds to the image part. If every seed loses other
    images, it adds to the seed part, which few seeds measure badly. The lost images are not known beforehand,
    so both are added. The drop itself is taken to be the same in every draw. `shapes`: the numbers of seeds
    and images of each test set.
    """
    several = len(shapes) ** 2
    images = sum(1 / n for _, n in shapes) / several
    seeds = sum(1 / (s * n) for s, n in shapes if s > 1) / several
    drop, before = margin, -1.0
    while drop - before > 1e-6:  # rises to the smallest solution of drop = margin + resolvable(drop)
        share = min(drop, 0.5)  # beyond a half the variance falls again, and the search would turn back
        own, kept = share * (1 - share), interval.parts
        parts = kept._replace(seeds=kept.seeds + own * seeds, images=kept.images + own * images)
        before, drop = drop, min(1.0, margin + resolvable(replace(interval, parts=parts), power))
    return drop
