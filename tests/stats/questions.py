"""Measure how often the statistics of ``bench.stats`` are wrong, on outcomes whose true accuracies are known.

Each function simulates one experiment many times and returns shares of repetitions between 0 and 1.
``tests/stats/test_error_rates.py`` compares them with bounds. ``python -m tests.stats.coverage`` prints them.

Legend: D datasets, R repetitions, M methods, S seeds, n images.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.stats import (
    Interval,
    average_intervals,
    holm,
    not_told_from_best,
    resolvable,
)
from bench.stats.variance import Parts, p_of
from tests.stats.simulated import Change, Regime, Rerun, Simulated, rerun, simulate

BOUNDS = (-1.0, 1.0)  # of a difference of accuracies
SHARES = (0.0, 1.0)  # of an accuracy
WORSE = 0.05  # how much lower the accuracy of the worse method of a column is
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


def _intervals(
    cells_DRSn: NDArray[np.generic], bounds: tuple[float, float] = BOUNDS, one_fit: bool = False
) -> list[Interval]:
    """Return the interval of the average over datasets in each repetition."""
    sources = ["one fit"] * len(cells_DRSn) if one_fit else None
    return average_intervals(list(cells_DRSn.swapaxes(0, 1)), bounds=bounds, sources=sources)


def _p(intervals: Sequence[Interval]) -> NDArray[np.float64]:
    """Return the p-value of each interval for a value of 0, all at once."""
    return p_of(Parts(*np.array([one.parts for one in intervals]).T))


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
        own += _contain(_intervals(block.right[:, :, 0], SHARES), truths_RM[:, 0])
        paired += _contain(_intervals(_gaps(block.right)), truths_RM[:, 0] - truths_RM[:, 1])
    return float(np.mean(own)), float(np.mean(paired))


def _p_of_equal(
    rng: np.random.Generator, regime: Regime, seeds: int, repetitions: int, rows: int
) -> NDArray[np.float64]:
    """Return the p-values (R, rows) of comparisons of two equal methods, each row on a dataset of its own."""
    found: list[NDArray[np.float64]] = []
    for block in blocks(rng, regime, (regime.accuracy, regime.accuracy), seeds, repetitions, rows):
        found.append(np.stack([_p(_intervals(gap[None])) for gap in _gaps(block.right)], -1))
    return np.concatenate(found)


def tails(
    rng: np.random.Generator,
    regime: Regime,
    seeds: int,
    repetitions: int,
    levels: Sequence[float] = (0.05, 0.01, 0.001),
    rows: int = 11,
) -> tuple[list[float], float]:
    """Return how often p is below each level without a difference, and how often Holm errs in any row."""
    p = _p_of_equal(rng, regime, seeds, repetitions, rows)
    families = np.mean([(holm(of_rows) <= 0.05).any() for of_rows in p])
    return [float((p <= level).mean()) for level in levels], float(families)


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


class Power(NamedTuple):
    """What data claim to resolve, and how often they do.

    ``claim``: the median of the differences that repetitions claim to resolve, a fraction. ``at_median``: how
    often a repetition finds a true difference of this size; NaN if two accuracies cannot differ as much.
    ``on_average``: how often another repetition finds a difference of the size that one repetition claims.
    """

    claim: float
    at_median: float
    on_average: float


def power(
    rng: np.random.Generator, regime: Regime, seeds: int, repetitions: int, rows: int = 1, datasets: int = 1
) -> Power:
    """Measure the power at the differences that data claim to resolve.

    ``rows``: the rows of Holm's correction, of which only the first has a difference. ``datasets``: how many
    datasets a row averages.
    """
    others = (
        _p_of_equal(rng, regime, seeds, repetitions, rows - 1) if rows > 1 else np.empty((repetitions, 0))
    )

    def found(p: NDArray[np.float64]) -> float:
        first = [holm([one, *rest])[0] for one, rest in zip(p, others, strict=True)]
        return float((np.array(first) <= 0.05).mean())

    equal = _with_difference(rng, regime, 0.0, seeds, repetitions, datasets)
    claims = np.array([resolvable(one, rows=rows) for one in equal])
    # A repetition is moved by the claim of the one before, which is independent of it.
    moved = [
        one.parts._replace(estimate=one.estimate + c)
        for one, c in zip(equal, np.roll(claims, 1), strict=True)
    ]
    on_average = found(p_of(Parts(*np.array(moved).T)))
    claim, largest = float(np.median(claims)), 1.9 * min(regime.accuracy, 1 - regime.accuracy)
    for _ in range(2):  # the claim depends a little on the true difference, so it is found by iteration
        if claim > largest:
            return Power(claim, float("nan"), on_average)
        some = _with_difference(rng, regime, claim, seeds, repetitions, datasets)
        claim = float(np.median([resolvable(one, rows=rows) for one in some]))
    if claim > largest:
        return Power(claim, float("nan"), on_average)
    at_median = found(_p(_with_difference(rng, regime, claim, seeds, repetitions, datasets)))
    return Power(claim, at_median, on_average)


def _with_difference(
    rng: np.random.Generator, regime: Regime, gap: float, seeds: int, repetitions: int, datasets: int
) -> list[Interval]:
    """Return intervals for the difference of two methods, averaged over datasets."""
    accuracies = (regime.accuracy + gap / 2, regime.accuracy - gap / 2)
    made = blocks(rng, regime, accuracies, seeds, repetitions, datasets)
    return [one for block in made for one in _intervals(_gaps(block.right))]


def targets_of_one_fit(
    rng: np.random.Generator, regime: Regime, seeds: int, repetitions: int, targets: int = 4
) -> tuple[float, float]:
    """Return the coverage of the average over test sets of one fit, of an accuracy and of a difference."""
    accuracies = (regime.accuracy, regime.accuracy - 0.02)
    own: list[Interval] = []
    paired: list[Interval] = []
    for block in blocks(rng, regime, accuracies, seeds, repetitions, targets, one_fit=True):
        own += _intervals(block.right[:, :, 0], SHARES, one_fit=True)
        paired += _intervals(_gaps(block.right), one_fit=True)
    truths = (accuracies[0], accuracies[0] - accuracies[1])
    both = [
        np.mean(_contain(some, np.full(repetitions, truth)))
        for some, truth in zip((own, paired), truths, strict=True)
    ]
    return float(both[0]), float(both[1])


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
