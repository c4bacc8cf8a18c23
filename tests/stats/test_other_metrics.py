"""Intervals and marks of metrics that are not accuracies: other bounds, lower is better, a known excess."""

import numpy as np
import pytest

from bench.stats import (
    average_difference_interval,
    column_marks,
    dataset_interval,
    difference_bounds,
    lowered,
    mean_interval,
    not_told_from_best,
)

ENDLESS = (0.0, np.inf)


def nats(seed: int, mean: float, n: int = 400) -> np.ndarray:
    """Values of three seeds (3, n) in nats."""
    return np.random.default_rng(seed).gamma(2.0, mean / 2, (3, n))


def test_bounds_of_a_difference() -> None:
    assert difference_bounds((0.0, 1.0)) == (-1.0, 1.0)
    assert difference_bounds((0.0, 2.0)) == (-2.0, 2.0)
    assert difference_bounds(ENDLESS) == (-np.inf, np.inf)


def test_a_large_difference_in_nats_is_not_cut() -> None:
    high, low = nats(0, 6.0), nats(1, 1.0)
    interval = average_difference_interval([(high, low)], bounds=ENDLESS)
    assert interval.low < interval.estimate < interval.high
    assert interval.low > 3
    cut = average_difference_interval([(high, low)])
    assert cut.high == 1.0  # what the bounds of accuracies would make of it


def test_the_lowest_is_best_where_lower_is_better() -> None:
    base = nats(0, 1.0)
    column = {
        "worse": [base + 3],
        "best": [base],
        "near": [base + np.random.default_rng(5).normal(0.01, 1, base.shape)],
    }
    marks = column_marks(column, bounds=ENDLESS, lower_is_better=True)
    assert [name for name, mark in marks.items() if mark.best] == ["best"]
    assert marks["near"].tied
    assert not marks["worse"].tied
    apart = marks["worse"].to_best
    assert apart is not None
    assert apart.low > 2  # beyond the bounds of an accuracy's difference
    assert not_told_from_best(column, bounds=ENDLESS, lower_is_better=True) == {"near"}
    assert [name for name, mark in column_marks(column, bounds=ENDLESS).items() if mark.best] == ["worse"]


def test_negated_values_have_the_same_marks() -> None:
    column = {name: [nats(i, 1.0 + i / 40)] for i, name in enumerate("abcde")}
    negated = {name: [-one for one in cells] for name, cells in column.items()}
    there = column_marks(column, bounds=ENDLESS, lower_is_better=True)
    back = column_marks(negated, bounds=(-np.inf, 0.0))
    assert {k: (m.best, m.tied) for k, m in there.items()} == {k: (m.best, m.tied) for k, m in back.items()}


def test_an_excess_lowers_one_end_only() -> None:
    interval = mean_interval(np.random.default_rng(0).random((3, 200)) < 0.3)
    down = lowered(interval, 0.05)
    assert down.low == pytest.approx(interval.low - 0.05)
    assert (down.high, down.estimate) == (interval.high, interval.estimate)
    assert lowered(interval, 0.9).low == 0.0
    assert lowered(interval, 0.0) == interval
    for bad in (-0.1, np.nan, np.inf):
        with pytest.raises(ValueError, match="finite number"):
            lowered(interval, bad)


def test_an_interval_below_the_least_is_not_raised() -> None:
    interval = mean_interval(nats(0, 0.01, 5) - 3, bounds=(-9.0, 9.0))
    assert lowered(interval, 0.1).low == interval.low < 0


def test_datasets_as_the_sample_in_nats() -> None:
    values = [2.0, 9.0, 4.0]
    assert dataset_interval(values).high == 1.0
    assert dataset_interval(values, bounds=(-np.inf, np.inf)).high > 9
