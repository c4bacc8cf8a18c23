"""Compare two methods on the same images and seeds: paired differences and McNemar's test (fractions)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # loads its parts at their first use, because scipy.stats takes a second
from numpy.typing import ArrayLike, NDArray

from bench.stats.intervals import Interval, average_intervals
from bench.stats.variance import table

Pair = tuple[ArrayLike, ArrayLike]
BOUNDS = (-1.0, 1.0)


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


def average_difference_interval(pairs: Sequence[Pair], level: float = 0.95) -> Interval:
    """Return the interval for the difference of averages over datasets, from a (first, second) pair each."""
    return average_difference_intervals([pairs], level)[0]


def average_difference_intervals(rows: Sequence[Sequence[Pair]], level: float = 0.95) -> list[Interval]:
    """Return ``average_difference_interval`` of each row of pairs.

    Every row has the same datasets in the same order.
    """
    return average_intervals([[difference(a, b) for a, b in pairs] for pairs in rows], level, BOUNDS)


class McNemar(NamedTuple):
    """Images that only one of two methods gets right, and two-sided p-values of "both equally often"."""

    only_first: int
    only_second: int
    p_exact: float
    # The exact p minus half the probability of the observed split. It is less conservative, so use it.
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
    return McNemar(only_a, only_b, exact, min(1.0, exact - float(scipy.stats.binom.pmf(only_a, n, 0.5))))
