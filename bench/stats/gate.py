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
    true drop that this test calls worse with probability `power`, or 1 if there is none.
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
    a negative margin, a level that is not between 0.5 and 1, or fewer than one group.
    """
    if margin < 0:
        raise ValueError(f"the margin is the largest drop to accept, at least 0, not {margin}")
    if not 0.5 < level < 1:
        raise ValueError(f"a level of one side lies between 0.5 and 1, not {level}")
    if groups < 1:
        raise ValueError(f"a family has at least one group, not {groups}")
    interval = average_difference_interval(pairs, 1 - 2 * (1 - level) / groups, sources)
    images = [np.shape(new)[-1] for new, _ in pairs]
    return NonInferiority(interval, margin, _smallest_drop(interval, images, margin, power), power)


def _smallest_drop(interval: Interval, images: Sequence[int], margin: float, power: float) -> float:
    """Return the smallest true drop whose whole interval lies below -margin with probability `power`.

    A drop brings variance of its own, which an unchanged run does not show: some images are lost and others
    are not. At worst the same images are lost in every seed. This variance is added to that of the interval.
    `images`: the number of images of each test set.
    """
    per_image = sum(1 / n for n in images) / len(images) ** 2
    drop, before = margin, -1.0
    while drop - before > 1e-6:  # rises to the smallest solution of drop = margin + resolvable(drop)
        parts = interval.parts._replace(images=interval.parts.images + drop * (1 - drop) * per_image)
        before, drop = drop, min(1.0, margin + resolvable(replace(interval, parts=parts), power))
    return drop
