"""The test of non-inferiority holds for a whole family, and states truly which drop it finds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.stats import NonInferiority, non_inferiority


def table(seed: int, share: float, shape: tuple[int, int]) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(shape) < share


def test_noise_holds_and_a_drop_is_worse() -> None:
    rng = np.random.default_rng(12)
    old = rng.random((3, 3000)) < 0.7
    flipped = old ^ (rng.random(old.shape) < 0.005)
    worse = old & ~(rng.random(old.shape) < 0.06)
    steady, drop = non_inferiority([(flipped, old)]), non_inferiority([(worse, old)])
    assert steady.outcome == "held" and steady.passed
    assert drop.outcome == "worse" and not drop.passed
    assert drop.interval.low < drop.interval.estimate < drop.interval.high < -0.01
    assert drop.interval.level == pytest.approx(0.90)


def test_unproven_is_not_worse() -> None:
    """An interval that reaches below the margin, but not with all of its length, decides nothing."""
    rng = np.random.default_rng(12)
    old = rng.random((3, 60)) < 0.7
    few = non_inferiority([(old ^ (rng.random(old.shape) < 0.05), old)])
    assert few.interval.low < -0.01 < few.interval.high
    assert few.outcome == "undecided" and not few.passed


def test_more_groups_widen_the_interval() -> None:
    old = table(0, 0.7, (3, 1000))
    new = old ^ table(1, 0.01, old.shape)
    one, nine = non_inferiority([(new, old)]), non_inferiority([(new, old)], groups=9)
    assert nine.interval.level == pytest.approx(1 - 2 * 0.05 / 9)
    assert nine.interval.low < one.interval.low and nine.interval.high > one.interval.high
    assert nine.smallest_drop > one.smallest_drop


def test_identical_outcomes_hold_and_find_drops_beyond_the_margin_only() -> None:
    old = table(0, 0.7, (1, 1000))
    same = non_inferiority([(old, old)])
    assert same.passed
    assert same.interval.low == pytest.approx(-(1 - 0.05 ** (1 / 1000)))
    assert 0.02 < same.smallest_drop < 0.03, "an interval below -1 point needs a drop of more than 1 point"
    assert non_inferiority([(old, old)], margin=0.0).smallest_drop < 0.012


@pytest.mark.parametrize("shared", [True, False], ids=["same images", "other images"])
@pytest.mark.parametrize(("datasets", "seeds"), [(1, 1), (1, 2), (1, 3), (1, 5), (4, 5)])
def test_the_stated_drop_is_found_with_the_stated_probability(
    datasets: int, seeds: int, shared: bool
) -> None:
    """It is found whether every seed loses the same images or images of its own.

    The run itself shows too small a seed part if few seeds agree. So the drop states more than 80 % there.
    """
    rng = np.random.default_rng(5)
    images = 700

    def test(drop: float) -> NonInferiority:
        pairs = []
        for _ in range(datasets):
            old = np.broadcast_to(rng.random(images) < 0.6, (seeds, images))
            lost = rng.random(images if shared else (seeds, images)) < drop / 0.6
            new = old & ~lost ^ (rng.random((seeds, images)) < 0.002)
            pairs.append((new, old))
        return non_inferiority(pairs, groups=9)

    stated = float(np.median([test(0.0).smallest_drop for _ in range(20)]))
    if seeds == 2:
        assert stated == 1.0, "two seeds of one dataset prove no drop"
        return
    found = np.mean([test(stated).outcome == "worse" for _ in range(200)])
    assert found >= 0.75
    if seeds == 1 or datasets > 1:  # fewer draws may find much smaller drops by luck
        assert np.mean([test(stated / 2).outcome == "worse" for _ in range(100)]) < 0.5


@pytest.mark.parametrize(
    ("wrong", "said"), [({"margin": -1.0}, "margin"), ({"level": 0.4}, "level"), ({"groups": 0}, "family")]
)
def test_impossible_tests_are_refused(wrong: dict[str, float], said: str) -> None:
    old = table(0, 0.7, (1, 100))
    with pytest.raises(ValueError, match=said):
        non_inferiority([(old, old)], **wrong)  # type: ignore[arg-type]
