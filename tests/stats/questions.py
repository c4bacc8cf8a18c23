"""Measure how often the statistics of ``bench.stats`` are wrong, on outcomes whose true accuracies are known.

Each function simulates one experiment many times and returns shares of repetitions between 0 and 1.
``tests/stats/test_error_rates.py`` compares them with bounds. ``python -m tests.stats.coverage`` prints them.

Legend: D datasets, R repetitions, M methods, S seeds, n images.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.stats import (
    Interval,
    average_intervals,
    holm,
    not_told_from_best,
    p_value,
    resolvable,
)
from tests.stats.simulated import Change, Regime, Rerun, Simulated, rerun, simulate

BOUNDS = (-1.0, 1.0)  # of a difference of accuracies
WORSE = 0.05
_BLOCK = 4_000_000  # outcomes that are simulated at a time


def blocks(
    rng: np.random.Generator,
    regime: Regime,
    accuracies: Sequence[float],
    seeds: int,
    repetitions: int,
    datasets: int = 1,
    one_fit: bool = False,
) -> Iterator[Simulated]:
    """Simulate the repetitions in blocks that fit into memory."""
    each = datasets * len(accuracies) * seeds * regime.images
    while repetitions > 0:
        now = min(repetitions, max(1, _BLOCK // each))
        repetitions -= now
        yield simulate(
            rng,
            regime.shares,
            accuracies,
            repetitions=now,
            seeds=seeds,
            images=regime.images,
            datasets=datasets,
            one_fit=one_fit,
        )


def _gaps(right_DRMSn: NDArray[np.bool_]) -> NDArray[np.int8]:
    """Return the differences of the first two methods (D, R, S, n)."""
    return right_DRMSn[:, :, 0].astype(np.int8) - right_DRMSn[:, :, 1]


def _intervals(cells_DRSn: NDArray[np.generic], bounds: tuple[float, float] = BOUNDS) -> list[Interval]:
    """Return the interval of the average over datasets in each repetition."""
    return average_intervals(list(cells_DRSn.swapaxes(0, 1)), bounds=bounds)


def _contain(intervals: Sequence[Interval], truths: NDArray[np.float64]) -> list[bool]:
    return [one.contains(float(truth)) for one, truth in zip(intervals, truths, strict=True)]


def coverage(
    rng: np.random.Generator, regime: Regime, seeds: int, repetitions: int, gap: float = 0.0
) -> tuple[float, float]:
    """Return how often the 95 % intervals of an accuracy and of a paired difference contain the true value.

    With one seed the true value is the one of this draw of support images.
    """
    accuracies = (regime.accuracy, regime.accuracy - gap)
    own, paired = [], []
    for block in blocks(rng, regime, accuracies, seeds, repetitions):
        truths_RM = block.of_draws[0] if seeds == 1 else np.broadcast_to(accuracies, block.of_draws[0].shape)
        own += _contain(_intervals(block.right[:, :, 0], (0.0, 1.0)), truths_RM[:, 0])
        paired += _contain(_intervals(_gaps(block.right)), truths_RM[:, 0] - truths_RM[:, 1])
    return float(np.mean(own)), float(np.mean(paired))


def tails(
    rng: np.random.Generator,
    regime: Regime,
    seeds: int,
    repetitions: int,
    levels: Sequence[float] = (0.05, 0.01, 0.001),
    rows: int = 11,
) -> tuple[list[float], float]:
    """Return how often p is below each level without a difference, and how often Holm errs in any row."""
    p: list[list[float]] = []
    for block in blocks(rng, regime, (regime.accuracy, regime.accuracy), seeds, repetitions, rows):
        by_row = [[p_value(one) for one in _intervals(gap[None])] for gap in _gaps(block.right)]
        p += list(map(list, zip(*by_row, strict=True)))
    found = np.array(p)
    families = np.mean([(holm(one) <= 0.05).any() for one in found])
    return [float((found <= level).mean()) for level in levels], float(families)


def marks(
    rng: np.random.Generator, regime: Regime, equal: int, seeds: int, repetitions: int, datasets: int = 1
) -> tuple[float, float]:
    """Return how often a column leaves any of the equal best methods unmarked, and a worse method unmarked.

    The column has the equal methods and one whose accuracy is 5 points lower.
    """
    accuracies = [regime.accuracy] * equal + [regime.accuracy - WORSE]
    names = [f"m{i}" for i in range(len(accuracies))]
    missed, rightly = [], []
    for block in blocks(rng, regime, accuracies, seeds, repetitions, datasets):
        for right_DMSn in block.right.swapaxes(0, 1):
            kept = not_told_from_best(dict(zip(names, map(list, right_DMSn.swapaxes(0, 1)), strict=True)))
            kept |= {names[int(right_DMSn.mean((0, 2, 3)).argmax())]}
            missed.append(not kept.issuperset(names[:equal]))
            rightly.append(names[-1] not in kept)
    return float(np.mean(missed)), float(np.mean(rightly))


def power(
    rng: np.random.Generator, regime: Regime, seeds: int, repetitions: int, rows: int = 1, datasets: int = 1
) -> tuple[float, float]:
    """Return the median difference that data claim to resolve, and how often data find one of this size.

    ``rows``: the rows of Holm's correction. Only the first has a difference. ``datasets``: how many a row
    averages.
    """

    def claim(gap: float, repeats: int) -> tuple[float, float]:
        claims, found = [], []
        accuracies = (regime.accuracy + gap / 2, regime.accuracy - gap / 2)
        nulls = (regime.accuracy, regime.accuracy)
        blank = blocks(rng, regime, nulls, seeds, repeats, rows - 1) if rows > 1 else iter(())
        others: list[list[float]] = []
        for other in blank:
            by_row = [[p_value(one) for one in _intervals(g[None])] for g in _gaps(other.right)]
            others += list(map(list, zip(*by_row, strict=True)))
        for block in blocks(rng, regime, accuracies, seeds, repeats, datasets):
            for one in _intervals(_gaps(block.right)):
                claims.append(resolvable(one, rows=rows) if rows > 1 else resolvable(one))
                p = [p_value(one), *(others[len(found)] if rows > 1 else ())]
                found.append(float(holm(p)[0]) <= 0.05)
        return float(np.median(claims)), float(np.mean(found))

    largest = 1.9 * min(regime.accuracy, 1 - regime.accuracy)
    gap = 0.1
    for _ in range(3):  # the claim depends a little on the accuracies, so it is found by iteration
        gap = min(claim(gap, max(200, repetitions // 8))[0], largest)
    return gap, claim(gap, repetitions)[1]


def targets_of_one_fit(
    rng: np.random.Generator, regime: Regime, seeds: int, repetitions: int, targets: int = 4
) -> tuple[float, float]:
    """Return the coverage of the average over test sets of one fit, of an accuracy and of a difference."""
    accuracies = (regime.accuracy, regime.accuracy - 0.02)
    own, paired = [], []
    for block in blocks(rng, regime, accuracies, seeds, repetitions, targets, one_fit=True):
        own += _contain(
            _intervals(block.right[:, :, 0], (0.0, 1.0)), np.full(block.right.shape[1], accuracies[0])
        )
        paired += _contain(_intervals(_gaps(block.right)), np.full(block.right.shape[1], 0.02))
    return float(np.mean(own)), float(np.mean(paired))


def gate(
    rng: np.random.Generator,
    verdict: Callable[[list[list[Rerun]]], Hashable],
    regime: Regime,
    change: Change,
    repetitions: int,
    *,
    methods: int = 12,
    datasets: int = 5,
    seeds: int = 5,
) -> dict[Hashable, float]:
    """Return how often a verdict is given.

    ``verdict`` gets the reruns of each method on each dataset, and returns anything that can be counted, for
    example an exit code.
    """
    counts = Counter(
        verdict(rerun(rng, regime, change, methods=methods, datasets=datasets, seeds=seeds))
        for _ in range(repetitions)
    )
    return {given: count / repetitions for given, count in counts.items()}
