"""Intervals for means and paired differences, p-values, McNemar."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from bench.stats import (
    average_difference_interval,
    average_interval,
    average_intervals,
    column_marks,
    critical_value,
    dataset_interval,
    difference,
    difference_interval,
    mcnemar,
    mean_interval,
    not_told_from_best,
    p_value,
    resolvable,
)
from bench.stats.variance import half_width, mean_parts, p_of

WIDE = (-9.0, 9.0)
PAIRS = arrays(np.bool_, (2, 3, 12))


def outcomes(seed: int, accuracy: float, shape: tuple[int, ...] = (3, 400)) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < accuracy


def test_one_seed_names_images_only() -> None:
    y = outcomes(0, 0.7, (1, 300))
    interval = mean_interval(y)
    assert interval.varies == ("images",)
    assert interval.parts.seeds == 0
    # Wilson's interval at Student's t with the variance over n - 1
    t2 = stats.t.isf(0.025, 299) ** 2 / 299
    wilson = np.roots([1 + t2, -2 * y.mean() - t2, y.mean() ** 2])
    assert sorted(wilson) == pytest.approx([interval.low, interval.high])
    assert mean_interval(y[0]) == interval
    assert mean_interval(outcomes(0, 0.7)).varies == ("seeds", "images")


@pytest.mark.parametrize("n", [20, 60, 500])
def test_ends_are_in_order_near_the_extremes(n: int) -> None:
    wrong = [mean_interval(np.arange(n) >= k) for k in range(4)]
    assert [w.low for w in wrong] == sorted((w.low for w in wrong), reverse=True)
    assert wrong[0].high == 1 > wrong[1].high > wrong[2].high > wrong[3].high
    mirrored = mean_interval(np.arange(n) < 1)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - wrong[1].high, 1 - wrong[1].low))


def test_datasets_as_the_sample() -> None:
    values = [0.03, 0.01, -0.02, 0.05, 0.02]
    interval = dataset_interval(values)
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert interval.varies == ("datasets",)
    assert p_value(interval) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    with pytest.raises(ValueError, match="two or more datasets"):
        dataset_interval([0.1])


def test_seeds_that_differ_widen_the_interval() -> None:
    same = np.repeat(outcomes(1, 0.6, (1, 400)), 3, axis=0)
    apart = same.copy()
    apart[0, :40], apart[1, :40] = True, False
    assert mean_interval(apart).se > 1.5 * mean_interval(same).se
    assert mean_interval(same).se == pytest.approx(
        mean_interval(same[:1]).se, rel=1e-3
    )  # copies of a seed add nothing


def test_average_over_fixed_datasets() -> None:
    cells = [outcomes(i, 0.5 + i / 20, (3, 200 + 50 * i)) for i in range(4)]
    average = average_interval(cells)
    singles = [mean_interval(c) for c in cells]
    assert average.estimate == pytest.approx(np.mean([s.estimate for s in singles]))
    assert average.se == pytest.approx(np.sqrt(sum(s.se**2 for s in singles)) / 4)
    assert average.se < 0.7 * max(s.se for s in singles)
    assert average.parts.seeds_df > min(s.parts.seeds_df for s in singles)
    assert average_interval([cells[0], outcomes(9, 0.5, (1, 100))]).varies == ("images",), "the fewest count"
    shared = average_interval(cells, sources=["a", "a", "b", "b"])
    assert shared.estimate == pytest.approx(average.estimate)
    assert shared.parts.seeds != average.parts.seeds


@pytest.mark.parametrize("n", [20, 500])
def test_no_exception_among_n_images_is_not_certainty(n: int) -> None:
    interval = mean_interval(np.ones((3, n)))
    exact = stats.binomtest(n, n).proportion_ci(0.95).low
    assert interval.high == 1
    assert interval.low == pytest.approx(exact)
    same = difference_interval(np.ones((3, n)), np.ones((3, n)))
    assert (same.low, same.high) == pytest.approx((exact - 1, 1 - exact))
    assert p_value(same) == 1


@given(PAIRS)
def test_paired_difference_is_antisymmetric_and_consistent(pair: np.ndarray) -> None:
    a, b = pair
    forth, back = difference_interval(a, b), difference_interval(b, a)
    assert (forth.estimate, forth.low, forth.high) == pytest.approx((-back.estimate, -back.high, -back.low))
    assert forth.estimate == pytest.approx(a.mean() - b.mean())
    assert forth.low <= forth.estimate <= forth.high
    if abs(p_value(forth) - 0.05) > 1e-6:
        assert (p_value(forth) > 0.05) == (abs(forth.estimate) <= half_width(forth.parts))
    wide = difference_interval(a, b, level=0.99)
    assert wide.low <= forth.low + 1e-12
    assert wide.high >= forth.high - 1e-12


def test_pairing_removes_the_shared_difficulty() -> None:
    rng = np.random.default_rng(4)
    hard = 3 * rng.standard_normal(400)
    a, b = (mean + hard + rng.standard_normal((3, 400)) > 0 for mean in (0.6, 0.2))
    assert difference_interval(a, b).se < 0.7 * np.hypot(mean_interval(a).se, mean_interval(b).se)
    one = difference_interval(a, b)
    two = average_difference_interval([(a, b), (a, b)])
    assert two.se == pytest.approx(one.se / np.sqrt(2))


def test_a_method_without_seeds_is_paired_with_every_seed() -> None:
    a, b = outcomes(0, 0.7), outcomes(1, 0.6, (1, 400))
    assert np.array_equal(difference(a, b), a.astype(int) - b)
    with pytest.raises(ValueError, match="same seeds"):
        difference(a, outcomes(1, 0.6, (2, 400)))
    with pytest.raises(ValueError, match="same images"):
        difference(a, outcomes(1, 0.6, (3, 399)))


def test_mcnemar_against_binomial_sums() -> None:
    a = np.array([1] * 9 + [0] * 2 + [1] * 50, bool)
    b = np.array([0] * 9 + [1] * 2 + [1] * 50, bool)
    result = mcnemar(a, b)
    tail = sum(comb(11, i) for i in range(3)) / 2**11
    assert result[:2] == (9, 2)
    assert result.p_exact == pytest.approx(2 * tail)
    assert result.p_mid == pytest.approx(2 * tail - comb(11, 2) / 2**11)
    assert mcnemar(a, a) == (0, 0, 1.0, 1.0)
    even = mcnemar([1, 0, 1], [0, 1, 1])
    assert (even.p_exact, even.p_mid) == (1, pytest.approx(0.75))
    uneven = mcnemar(np.arange(8) < 2, np.arange(8) >= 2)
    one_side = (comb(8, 0) + comb(8, 1) + comb(8, 2) / 2) / 2**8  # the split itself counts half
    assert uneven.p_mid == pytest.approx(2 * one_side)
    with pytest.raises(ValueError, match="two vectors"):
        mcnemar(np.ones((3, 5)), np.ones((3, 5)))


def test_mcnemar_against_statsmodels() -> None:
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    a, b = outcomes(5, 0.7, (200,)), outcomes(6, 0.6, (200,))
    table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    assert mcnemar(a, b).p_exact == pytest.approx(contingency.mcnemar(table, exact=True).pvalue)


@pytest.mark.parametrize(("seeds", "rows"), [(1, 1), (2, 1), (3, 1), (3, 5)])
def test_resolvable_difference_is_found_with_the_stated_power(seeds: int, rows: int) -> None:
    """Normal outcomes whose variance is that of the seeds; for one seed, of the images."""
    rng = np.random.default_rng(8)

    def tables(count: int) -> NDArray[np.float64]:
        effects = rng.standard_normal((count, seeds, 1)) if seeds > 1 else 0.0
        return 0.02 * effects + 0.02 * rng.standard_normal((count, seeds, 100))

    claimed = [resolvable(i, rows=rows) for i in average_intervals([[y] for y in tables(3000)], bounds=WIDE)]
    again = mean_parts(tables(3000) + np.array(claimed)[:, None, None])
    found = np.mean(p_of(again) < 0.05 / rows)
    assert 0.77 <= found <= 0.84
    one = mean_interval(tables(1)[0], bounds=WIDE)
    assert resolvable(one, power=0.9) > resolvable(one) and resolvable(one, rows=11) > resolvable(one)
    with pytest.raises(ValueError, match="power"):
        resolvable(one, power=1)


def test_column_marks() -> None:
    rng = np.random.default_rng(2)
    good = rng.random((3, 500)) < 0.8
    near = good ^ (rng.random(good.shape) < 0.01)
    near[0, :3] = ~good[0, :3]
    bad = good & (rng.random((1, 500)) < 0.8)
    marks = column_marks({"bad": [bad], "good": [good], "near": [near & good]})
    assert [marks[m].best for m in marks] == [False, True, False]
    assert list(marks) == ["bad", "good", "near"]
    assert not marks["bad"].tied
    assert marks["good"].to_best is None
    close = column_marks({"a": [good], "b": [near]})
    other = close["b"] if close["a"].best else close["a"]
    assert other.tied
    assert other.to_best is not None
    assert other.to_best.contains(0)
    plain = average_difference_interval([(near, good)])
    assert other.to_best.high - other.to_best.low == pytest.approx(plain.high - plain.low, rel=0.01)
    with pytest.raises(ValueError, match="same datasets"):
        column_marks({"a": [good], "b": [good, good]})


@pytest.mark.parametrize(("k", "df"), [(2, 2), (3, 2.67), (5, 1.6), (11, 3.7), (30, 7.5), (70, 250), (22, 4)])
def test_critical_values_are_those_of_the_studentised_range(k: int, df: float) -> None:
    want = stats.studentized_range.ppf(0.95, k, df) / np.sqrt(2)
    assert float(critical_value(k, df)) == pytest.approx(want, rel=0.01)


def test_critical_values_of_two_methods_are_those_of_student() -> None:
    degrees = np.array([1, 2, 4, 20, 1e6])
    assert critical_value(2, degrees) == pytest.approx(stats.t.isf(0.025, degrees), rel=1e-3)
    for methods in (101, 250):  # beyond the stored numbers
        want = float(stats.studentized_range.ppf(0.95, methods, 10)) / 2**0.5
        assert float(critical_value(methods, 10)) == pytest.approx(want, rel=0.02)
    with pytest.raises(ValueError, match="two methods"):
        critical_value(1, 10)


@given(st.integers(1, 4), st.integers(2, 30), st.integers(0, 99))
def test_intervals_stay_within_the_possible(seeds: int, n: int, key: int) -> None:
    y = np.random.default_rng(key).random((seeds, n)) < 0.9
    interval = mean_interval(y)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1
    assert interval.high > interval.low


def test_rows_taken_together_are_what_each_is_alone() -> None:
    rng = np.random.default_rng(4)
    shapes = [(3, 40), (3, 70), (1, 40)]
    rows = [[rng.random(shape) < 0.4 + 0.05 * i for shape in shapes] for i in range(5)]
    rows.append([rng.random((2, 40)) < 0.5, rng.random((3, 70)) < 0.5, np.ones((1, 40), dtype=bool)])
    assert average_intervals(rows) == [average_interval(cells) for cells in rows]


def test_what_is_not_told_from_the_best_is_what_the_marks_tie() -> None:
    rng = np.random.default_rng(5)
    images = rng.random((1, 200))
    for step in (0.0, 0.01, 0.05):
        column = {
            f"m{i}": [0.6 * images + 0.4 * rng.random((3, 200)) < 0.5 + step * i for _ in range(2)]
            for i in range(5)
        }
        marks = column_marks(column)
        assert not_told_from_best(column) == {name for name, mark in marks.items() if mark.tied}
