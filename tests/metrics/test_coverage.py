"""How often the intervals of metrics contain the truth, in simulations that share no code with the program.

Two statements are tested. The interval of the values per image contains what other draws and images of the
same number give on average. With its lower end further down by the excess it contains the true metric.
250 repetitions leave a standard error of 1.4 points on a coverage of 95 %.
"""

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.metrics import METRICS
from bench.stats import Interval, column_marks, difference_interval, lowered, mean_interval
from bench.stats.paired import difference_bounds
from tests.metrics.examples import outputs
from tests.metrics.simulated import FORMULAS, WORLDS, Answers, World

pytestmark = pytest.mark.slow
REPEATS = 250
Array = NDArray[np.float64]


def tables(
    world: World, rng: np.random.Generator, fits: list[Array], n: int
) -> dict[str, tuple[Array, float]]:
    """Values per image (S, n) and the excess of each metric, for one draw of n images."""
    labels, x = world.images(rng, n)
    seeds = [outputs(world.logp(x, fit, world.scale), labels) for fit in fits]
    return {name: (METRICS[name].per_image(seeds), METRICS[name].excess(seeds)) for name in FORMULAS}


@cache
def over_draws(world: World) -> Array:
    """The true metrics of a world, which are the same however many seeds and images are drawn."""
    return world.truths(FORMULAS, 200, 4000)


@pytest.mark.parametrize(("seeds", "n"), [(1, 200), (3, 200), (3, 1000), (5, 100)])
@pytest.mark.parametrize("name", WORLDS)
def test_95_percent_intervals_contain_the_truth(name: str, seeds: int, n: int) -> None:
    world, rng = WORLDS[name], np.random.default_rng([seeds, n])
    one = world.fit(np.random.default_rng(5))  # with one seed the truth is that of this fit
    truths = world.truths(FORMULAS, 40, 20_000, one) if seeds == 1 else over_draws(world)
    found: dict[str, list[tuple[Interval, Interval]]] = {name: [] for name in FORMULAS}
    for _ in range(REPEATS):
        fits = [one] if seeds == 1 else [world.fit(rng) for _ in range(seeds)]
        for metric, (table, excess) in tables(world, rng, fits, n).items():
            interval = mean_interval(table, bounds=METRICS[metric].bounds)
            found[metric].append((interval, lowered(interval, excess)))
    for (metric, rows), truth in zip(found.items(), truths, strict=True):
        expected = float(np.mean([interval.estimate for interval, _ in rows]))
        same_size = np.mean([interval.contains(expected) for interval, _ in rows])
        true = np.mean([wide.contains(truth) for _, wide in rows])
        print(f"{name}, {seeds} seeds, {n}: {metric} {truth:.3f} {expected:.3f} {same_size:.1%} {true:.1%}")
        assert same_size >= 0.90, metric
        assert true >= 0.90, metric
        assert all(wide.low <= interval.estimate <= wide.high for interval, wide in rows)


@pytest.mark.parametrize(("seeds", "n"), [(3, 300), (5, 300)])
def test_differences_of_two_methods(seeds: int, n: int) -> None:
    """Equal methods with draws of their own: p below 5 % in at most about 5 %, and marks that tie them."""
    world, rng = WORLDS["overconfident"], np.random.default_rng(seeds)
    wrong = dict.fromkeys(FORMULAS, 0)
    apart = dict.fromkeys(FORMULAS, 0)
    for _ in range(REPEATS):
        labels, x = world.images(rng, n)
        first, second = (
            [outputs(world.logp(x, world.fit(rng), world.scale), labels) for _ in range(seeds)] for _ in "ab"
        )
        for name in FORMULAS:
            one = METRICS[name]
            a, b = one.per_image(first), one.per_image(second)
            interval = difference_interval(a, b)
            wide = mean_interval(a - b, bounds=difference_bounds(one.bounds))
            wrong[name] += not wide.contains(0.0)
            marks = column_marks({"a": [a], "b": [b]}, bounds=one.bounds, lower_is_better=one.lower_is_better)
            apart[name] += not all(mark.best or mark.tied for mark in marks.values())
            assert interval.estimate == pytest.approx(wide.estimate)
    print({name: (wrong[name] / REPEATS, apart[name] / REPEATS) for name in FORMULAS})
    assert max(wrong.values()) <= 0.09 * REPEATS
    assert max(apart.values()) <= 0.09 * REPEATS


@pytest.mark.parametrize("name", ["balanced", "macro-f1", "ece", "aurc"])
def test_standard_error_is_that_of_a_bootstrap_over_seeds_and_images(name: str) -> None:
    """Seeds and images are drawn with replacement; the metric is computed by the simulation's formula."""
    world, rng = WORLDS["overconfident"], np.random.default_rng(3)
    seeds, n = 20, 400
    labels, x = world.images(rng, n)
    logits = [world.logp(x, world.fit(rng), world.scale) for _ in range(seeds)]
    onehot = np.eye(world.K)[labels]
    repeated = []
    for _ in range(150):
        images, fits = rng.integers(0, n, n), rng.integers(0, seeds, seeds)
        per_fit = {f: FORMULAS[name](Answers(logits[f][images], onehot[images])) for f in set(fits.tolist())}
        repeated.append(np.mean([per_fit[f] for f in fits.tolist()]))
    ours = mean_interval(METRICS[name].per_image([outputs(z, labels) for z in logits])).se
    print(name, ours, np.std(repeated))
    # 150 repetitions know a standard deviation to 6 %. The bootstrap counts the interaction of seeds and
    # images three times (Owen 2007), which here is a small part.
    assert 0.8 < ours / np.std(repeated) < 1.2
