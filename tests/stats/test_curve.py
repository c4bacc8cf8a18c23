"""What more labels bring lies between two laws, and its interval holds the truth of simulated curves."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.stats import more_labels
from tests.stats.folds_simulated import World, curve

SIZES = (40.0, 80.0, 160.0)


def rows(error: Callable[[float], float], images: int = 20_000, seed: int = 0) -> NDArray[np.bool_]:
    """Outcomes whose errors lie on a curve; hard images stay hard the longest."""
    hard = np.random.default_rng(seed).random(images)
    return np.stack([hard > error(size) for size in SIZES])


def power(size: float) -> float:
    return 1.2 / math.sqrt(size)


def inverse(size: float) -> float:
    return 0.1 + 8 / size


def test_the_truth_of_both_laws_lies_in_the_interval_and_the_estimate_lies_between() -> None:
    for law in (power, inverse):
        found = more_labels(SIZES, rows(law))
        truth, gain = 1 - law(320), law(160) - law(320)
        assert found.size == 320
        assert found.low < truth < found.high and found.gain_low < gain < found.gain_high
        assert found.low < found.accuracy < found.high
    estimate = more_labels(SIZES, rows(power)).gain
    assert 0.5 * (power(160) - power(320)) < estimate < power(160) - power(320), "the mean of both laws"
    assert more_labels(SIZES, rows(inverse)).gain > inverse(160) - inverse(320)


def test_few_images_leave_the_interval_wide_and_a_larger_factor_brings_more() -> None:
    few, many = more_labels(SIZES, rows(power, 100)), more_labels(SIZES, rows(power))
    assert few.high - few.low > 5 * (many.high - many.low) / 2
    assert more_labels(SIZES, rows(power), factor=4).gain > many.gain
    nothing = more_labels(SIZES, rows(power), factor=1)
    assert nothing.gain == nothing.gain_low == nothing.gain_high == pytest.approx(0.0)
    assert more_labels(SIZES, rows(power, 500), level=0.5).high < more_labels(SIZES, rows(power, 500)).high


def test_more_labels_are_never_said_to_harm() -> None:
    falling = rows(power)[::-1]
    found = more_labels(SIZES, falling)
    assert found.gain == found.gain_low == pytest.approx(0.0)
    assert found.accuracy == pytest.approx(falling.mean(), abs=0.03)


def test_outcomes_without_a_mistake_and_without_a_hit_have_a_curve() -> None:
    for value in (0.0, 1.0):
        found = more_labels(SIZES, np.full((3, 50), value))
        assert found.accuracy == pytest.approx(value, abs=0.02)
        assert 0 <= found.low <= found.high <= 1


def test_rows_may_come_in_any_order_and_the_result_is_repeatable() -> None:
    right = rows(inverse, 300)
    found = more_labels(SIZES, right)
    assert found == more_labels(SIZES, right)
    turned = more_labels(SIZES[::-1], right[::-1])
    assert turned.accuracy == pytest.approx(found.accuracy) and turned.gain_high == pytest.approx(
        found.gain_high
    )


def test_what_is_no_curve_is_refused() -> None:
    right = rows(power, 50)
    for sizes in ((40, 80), (40, 80, 80), (0, 40, 80)):
        with pytest.raises(ValueError, match="two or more different numbers of training images"):
            more_labels(sizes, right)
    with pytest.raises(ValueError, match="two or more different"):
        more_labels([40], right[:1])
    for bad in ({"factor": 0.5}, {"level": 1.0}, {"resamples": 10}):
        with pytest.raises(ValueError, match="factor of 1 or more"):
            more_labels(SIZES, right, **bad)


WORLDS = {  # images of one kind, and the method that learns them
    "150 images, 5 classes, lda": (World(150, uneven=0.5, spread=0.4), "lda"),
    "400 images, 8 classes, lda": (World(400, uneven=0.5, spread=0.4, classes=8, size=24), "lda"),
    "150 images, 5 classes, centroid": (World(150), "centroid"),
    "300 images, accurate, ridge": (World(300, spread=0.9, uneven=0.3), "ridge 1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_the_interval_holds_the_accuracy_with_twice_the_labels(name: str) -> None:
    world, method = WORLDS[name]
    rng, repetitions = np.random.default_rng(3), 60
    covers, gains, estimates, truths = [], [], [], []
    for _ in range(repetitions):
        sizes, right, now, then = curve(world, method, (0.25, 0.5, 1.0), 2.0, rng)
        found = more_labels([float(size) for size in sizes], right, resamples=300)
        covers.append(found.low <= then <= found.high)
        gains.append(found.gain_low <= then - now <= found.gain_high)
        estimates.append(found.gain)
        truths.append(then - now)
    print(f"{name}: accuracy {np.mean(covers):.1%}, gain {np.mean(gains):.1%}")
    print(f"gain {np.mean(truths):.1%}, estimated {np.mean(estimates):.1%}")
    assert np.mean(covers) >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / repetitions)
    assert np.mean(gains) >= 0.80
    assert 0 < np.mean(truths) < np.mean(estimates) < 3 * np.mean(truths)
