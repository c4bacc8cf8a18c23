"""Compare two methods on the same images and seeds: paired differences and McNemar's test (fractions)."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import scipy  # loads its parts at their first use, because scipy.stats takes a second
from numpy.typing import ArrayLike, NDArray

from bench.stats.intervals import SHARES, Interval, average_intervals
from bench.stats.variance import table

Pair = tuple[ArrayLike, ArrayLike]


def difference_bounds(bounds: tuple[float, float]) -> tuple[float, float]:
    """Return the bounds of a difference of two means that lie in `bounds`: -1 and 1 for two accuracies."""
    return bounds[0] - bounds[1], bounds[1] - bounds[0]


def difference(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Return first - second by seed and image (S, n), from two correctness arrays (S, n) in the same order.

    A method without seeds (one row) is compared with every seed of the other. Raises ValueError if the shapes
    do not fit.
    """
    a, b = table(first).astype(np.float64), table(second).astype(np.float64)
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"paired outcomes need the same images: {a.shape[-1]} against {b.shape[-1]}")
    if a.shape[-2] != b.shape[-2] and 1 not in (a.shape[-2], b.shape[-2]):
        raise ValueError(f"paired outcomes need the same seeds: {a.shape[-2]} against {b.shape[-2]}")
    return a - b


def difference_interval(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Interval:
    """Return the interval for the accuracy difference first - second in one cell.

    The shapes are those of `difference`.
    """
    return average_difference_interval([(first, second)], level)


def average_difference_interval(
    pairs: Sequence[Pair],
    level: float = 0.95,
    sources: Sequence[Hashable] | None = None,
    bounds: tuple[float, float] = SHARES,
) -> Interval:
    """Return the interval for the difference of averages over test sets, from a (first, second) pair each.

    `sources` labels the test sets that are scored with the same fits, as in ``average_interval``. `bounds`
    are those of each mean; the interval is cut to what a difference can then be.
    """
    return average_difference_intervals([pairs], level, sources, bounds)[0]


def average_difference_intervals(
    rows: Sequence[Sequence[Pair]],
    level: float = 0.95,
    sources: Sequence[Hashable] | None = None,
    bounds: tuple[float, float] = SHARES,
) -> list[Interval]:
    """Return ``average_difference_interval`` of each row of pairs.

    Every row has the same test sets in the same order.
    """
    gaps = [[difference(a, b) for a, b in pairs] for pairs in rows]
    return average_intervals(gaps, level, difference_bounds(bounds), sources)


class McNemar(NamedTuple):
    """Images that only one of two methods gets right, and two-sided p-values of "both equally often"."""

    only_first: int
    only_second: int
    p_exact: float
    # The exact p less the probability of the observed split, or half of it where the split is even, which
    # both tails hold (Fagerland, Lydersen and Laake 2013). It is less conservative, so use it.
    p_mid: float


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """Run McNemar's test in one cell of one seed, on correctness vectors (n,) for the same images.

    Seeds may not be stacked into one vector, because the outcomes of one image under several seeds are not
    independent. Raises ValueError for other shapes.
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(
            f"McNemar's test takes two vectors over the same images, not shapes {a.shape} and {b.shape}"
        )
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n = only_a + only_b
    if n == 0:
        return McNemar(0, 0, 1.0, 1.0)
    exact = float(scipy.stats.binomtest(only_a, n, 0.5).pvalue)
    here = float(scipy.stats.binom.pmf(only_a, n, 0.5))
    return McNemar(only_a, only_b, exact, exact - (here / 2 if only_a == only_b else here))
