"""Variance parts against hand arithmetic and statsmodels' two-way table."""

import ast
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import bench.stats
from bench.stats.variance import half_width, mean_parts, p_of, pool, source_parts


def test_parts_of_a_table_worked_by_hand() -> None:
    # grand mean 1/2; mean squares: seeds 1/6, images 1/2, interaction 1/6; S n = 6
    parts = mean_parts([[1, 1, 0], [1, 0, 0]])
    assert float(parts.estimate) == pytest.approx(1 / 2)
    rounding = 1 / (12 * 3**2 * 2)
    assert float(parts.seeds) == pytest.approx((1 / 6) / 6 + rounding)
    assert float(parts.images) == pytest.approx((1 / 2 - 1 / 6) / 6)
    assert (float(parts.seeds_df), float(parts.images_df)) == (1, 2)
    # the two-sided 5 % points of Student's t with 1 and 2 degrees of freedom
    assert float(half_width(parts)) == pytest.approx(
        np.sqrt(12.7062**2 * (1 / 36 + rounding) + 4.3027**2 / 18), rel=1e-4
    )


def test_parts_equal_an_analysis_of_variance() -> None:
    rng = np.random.default_rng(3)
    y = rng.standard_normal((4, 7)) + rng.standard_normal((4, 1)) + rng.standard_normal(7)
    seeds = 7 * y.mean(1).var(ddof=1)
    images = 4 * y.mean(0).var(ddof=1)
    residual = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
    interaction = np.square(residual).sum() / (3 * 6)
    parts = mean_parts(y)
    assert float(parts.seeds) == pytest.approx(seeds / 28)
    assert float(parts.images) == pytest.approx((images - interaction) / 28)


def test_variance_is_unbiased_where_nothing_is_cut() -> None:
    rng = np.random.default_rng(5)
    r, s, n = 4000, 3, 40
    y = (
        rng.standard_normal((r, s, n))
        + 0.3 * rng.standard_normal((r, s, 1))
        + 2 * rng.standard_normal((r, 1, n))
    )
    parts = mean_parts(y)
    true = 0.09 / s + 4 / n + 1 / (s * n)
    assert np.mean(parts.seeds + parts.images) == pytest.approx(true, rel=0.03)
    assert parts.estimate.var() == pytest.approx(true, rel=0.08)


def test_one_seed_is_the_usual_standard_error() -> None:
    y = np.random.default_rng(0).random(30) < 0.7
    parts = mean_parts(y)
    assert float(parts.seeds) == 0
    assert float(parts.images) == pytest.approx(stats.sem(y.astype(float)) ** 2)
    assert float(half_width(parts)) == pytest.approx(stats.t.isf(0.025, 29) * stats.sem(y.astype(float)))


def test_equal_seed_parts_pool_their_degrees_of_freedom() -> None:
    y = np.random.default_rng(1).standard_normal((3, 50))
    parts = mean_parts(y)
    pooled = pool([parts] * 11)
    assert float(pooled.seeds) == pytest.approx(float(parts.seeds) / 11)
    assert float(pooled.images) == pytest.approx(float(parts.images) / 11)
    # 2 each: 11^2 / (11 / (2 + 2)) - 2; of equal variances squares are drawn twice as large, which leaves 20
    assert float(pooled.seeds_df) == pytest.approx(42)
    assert float(pool([parts]).seeds_df) == pytest.approx(2)


def test_targets_of_one_source_share_the_effects_of_its_seeds() -> None:
    rng = np.random.default_rng(6)
    seeds = rng.standard_normal((2000, 3, 1))
    tables = [seeds + rng.standard_normal((2000, 3, n)) for n in (30, 50, 80, 60)]
    together, apart = source_parts(tables), pool([mean_parts(y) for y in tables])
    noise = sum(1 / n for n in (30, 50, 80, 60)) / 16 / 3
    assert together.estimate == pytest.approx(apart.estimate)
    assert together.seeds.mean() == pytest.approx(1 / 3 + noise, rel=0.05)
    assert apart.seeds.mean() == pytest.approx((1 / 3) / 4 + noise, rel=0.05), "as if seeds were drawn anew"
    assert set(together.seeds_df) == {2} and together.estimate.var() == pytest.approx(1 / 3 + noise, rel=0.08)
    with pytest.raises(ValueError, match="same seeds"):
        source_parts([np.ones((3, 4)), np.ones((2, 4))])


def test_weights_give_every_test_set_the_same_share() -> None:
    rng = np.random.default_rng(7)
    a, b, c = (mean_parts(rng.random((3, 40)) < 0.5) for _ in range(3))
    weighed = pool([a, b, c], [0.5, 0.25, 0.25])
    assert float(weighed.estimate) == pytest.approx((2 * a.estimate + b.estimate + c.estimate) / 4)
    assert float(weighed.images) == pytest.approx((4 * a.images + b.images + c.images) / 16)
    assert float(pool([a], [1.0]).seeds_df) == pytest.approx(2)


def test_p_is_the_level_of_the_interval_that_just_reaches() -> None:
    parts = mean_parts(np.random.default_rng(8).random((3, 50)) < 0.7)
    for level in (0.5, 0.95, 0.999):
        reach = float(half_width(parts, level))
        assert float(p_of(parts, float(parts.estimate) + reach)) == pytest.approx(1 - level)
    assert float(p_of(parts, float(parts.estimate))) == 1
    one = mean_parts(np.random.default_rng(8).random(50) < 0.7)
    t = abs(float(one.estimate) - 0.2) / np.sqrt(float(one.images))
    assert float(p_of(one, 0.2)) == pytest.approx(2 * stats.t.sf(t, 49), rel=1e-6)
    many = mean_parts(np.arange(40000) % 1000 != 0)
    assert float(p_of(many, 0.0)) == 0
    assert 0 < float(p_of(many, 0.9975)) < 1e-15


def test_seeds_of_equal_accuracy_still_leave_some_variance() -> None:
    y = np.ones((2, 6))
    # Seeds are equal, images hardly differ: all mean squares but the interaction's are small.
    y[0, 0] = y[1, 1] = 0
    parts = mean_parts(y)
    interaction = 1 / 5  # the residual squares sum to 1, over (S - 1)(n - 1) = 5
    rounding = 1 / (12 * 6**2 * 2)
    assert float(parts.seeds) == pytest.approx(rounding)
    assert float(parts.images) == pytest.approx(interaction / 4 / 12 - rounding)


def test_batched_tables_equal_single_ones() -> None:
    y = np.random.default_rng(2).random((5, 3, 20)) < 0.6
    batched = mean_parts(y)
    for i in range(5):
        single = mean_parts(y[i])
        assert float(batched.seeds[i]) == pytest.approx(float(single.seeds))
        assert float(batched.images[i]) == pytest.approx(float(single.images))


@pytest.mark.parametrize("bad", [[], [1], [[1], [0]], [[1.0, np.nan]]])
def test_unusable_outcomes_are_refused(bad: list) -> None:
    with pytest.raises(ValueError, match=r"images|NaN"):
        mean_parts(bad)


def test_stats_imports_nothing_else_of_the_package() -> None:
    folder = Path(bench.stats.__file__).parent
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                outside = {
                    "numpy",
                    "scipy",
                    "pandas",
                    "collections",
                    "dataclasses",
                    "functools",
                    "importlib",
                    "itertools",
                    "typing",
                }
                assert name.startswith("bench.stats") or name.split(".")[0] in outside, (
                    f"{file.name} imports {name}"
                )
