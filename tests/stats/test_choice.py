"""The simplest method that is as good as the best is chosen, and its accuracy is corrected for that."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.stats import choose, commonest, corrected, critical_value, expected, mean_interval
from bench.stats.choice import WIDER, chosen_of

NAMES = ("zero-shot", "centroid", "linear", "deep")


def rows(seed: int, images: int, shares: tuple[float, ...]) -> NDArray[np.bool_]:
    """Outcomes that share what makes an image hard, with these accuracies on average."""
    rng = np.random.default_rng(seed)
    shared = rng.random(images)
    return np.stack([np.where(rng.random(images) < 0.7, shared, rng.random(images)) < s for s in shares])


def test_the_simplest_of_those_that_are_as_good_as_the_best_is_chosen() -> None:
    right = rows(0, 800, (0.5, 0.78, 0.79, 0.80))
    found = choose(right, NAMES)
    assert found.best == NAMES[int(right.mean(1).argmax())]
    assert found.chosen == "centroid" and found.as_good == ("centroid", "linear", "deep")
    assert [one.name for one in found.standings] == list(NAMES)
    worse = found.standing("zero-shot")
    assert not worse.as_good and worse.to_best is not None and worse.to_best.high < 0
    assert found.standing(found.best).to_best is None
    assert worse.accuracy == mean_interval(right[0])
    with pytest.raises(KeyError):
        found.standing("none")


def test_a_difference_to_the_best_is_tukeys() -> None:
    right = rows(1, 500, (0.7, 0.72, 0.75, 0.8))
    found = choose(right, NAMES)
    gap = right[0].astype(float) - right[NAMES.index(found.best)]
    reach = float(critical_value(4, 499)) * gap.std(ddof=1) / np.sqrt(500)
    interval = found.standing("zero-shot").to_best
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((gap.mean() - reach, gap.mean() + reach))


def test_equal_methods_leave_the_simplest_and_one_method_is_chosen_alone() -> None:
    right = np.repeat(rows(2, 50, (0.7,)), 3, axis=0)
    assert choose(right, "abc").chosen == choose(right, "abc").best == "a"
    alone = choose(right[:1], ["a"])
    assert alone.chosen == "a" and alone.as_good == ("a",)
    everything, nothing = np.ones((1, 50), dtype=bool), np.zeros((1, 50), dtype=bool)
    assert choose(np.r_[nothing, everything], "ab").chosen == "b"


def test_gains_over_references_hold_for_all_methods_together() -> None:
    right = rows(3, 400, (0.5, 0.6, 0.7, 0.8))
    labels = np.random.default_rng(0).choice(4, 400, p=[0.4, 0.3, 0.2, 0.1])
    found = choose(right, NAMES, {"zero-shot": right[0], "commonest class": commonest(labels)})
    assert set(found.standing("zero-shot").over) == {"commonest class"}
    gain = found.standing("deep").over
    assert gain["zero-shot"].estimate == pytest.approx(right[3].mean() - right[0].mean())
    assert gain["zero-shot"].low > 0 and gain["zero-shot"].level == pytest.approx(1 - 0.05 / 3)
    assert gain["commonest class"].level == pytest.approx(1 - 0.05 / 4)
    assert gain["commonest class"].estimate == pytest.approx(right[3].mean() - (labels == 0).mean())


def test_the_commonest_class_is_the_first_of_equally_common_ones() -> None:
    assert commonest([3, 1, 1, 3, 2]).tolist() == [False, True, True, False, False]
    assert commonest(["b", "b", "a"]).tolist() == [True, True, False]


def test_samples_choose_as_the_whole_does() -> None:
    """The bootstrap repeats the very rule: on a sample of images it takes what ``choose`` takes of them."""
    rng, taken = np.random.default_rng(4), set()
    for repetition in range(60):
        right = rows(repetition, 70, (0.55, 0.6, 0.7, 0.8))
        sample = right[:, rng.integers(70, size=70)]
        both = (sample[:, None] & sample[None]).sum(-1)[None].astype(float)
        place = int(chosen_of(np.diagonal(both, axis1=1, axis2=2), both, 70)[0])
        assert choose(sample, NAMES).chosen == NAMES[place]
        taken.add(place)
    assert len(taken) >= 3


def test_one_method_is_expected_to_do_what_it_did() -> None:
    right = rows(5, 300, (0.8,))
    found = expected(right)
    assert found.estimate == pytest.approx(right.mean(), abs=0.002), "nothing was chosen"
    plain = mean_interval(right[0])
    assert found.high - found.low == pytest.approx(WIDER * (plain.high - plain.low), rel=0.02)
    assert found.varies == ("images",) and found.level == 0.95
    assert found == expected(right), "the same outcomes give the same interval"


def test_what_was_chosen_for_its_luck_is_expected_to_do_worse() -> None:
    """Two methods with little in common: the simple one is chosen where it is luckier than the other."""
    excess, after = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        right = rng.random((2, 100)) < np.array([[0.60], [0.74]])
        found = expected(right, resamples=300)
        if choose(right, "ab").chosen == "a":
            excess.append(right[0].mean() - 0.60)
            after.append(found.estimate - 0.60)
    assert 10 <= len(excess) <= 30
    assert np.mean(excess) > 0.02
    assert abs(np.mean(after)) < 0.75 * np.mean(excess), "a good part of the luck is taken off"


def test_perfect_outcomes_have_an_interval_with_a_length() -> None:
    found = expected(np.ones((3, 60), dtype=bool))
    assert found.estimate == found.high == 1.0
    assert 0.90 < found.low < 1 - 3 / 60, "the exact binomial interval, and a little more"


def test_many_images_go_through_in_blocks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    right = rows(6, 90, (0.7, 0.75, 0.8))
    whole = expected(right)
    monkeypatch.setattr("bench.stats.choice._TOGETHER", 50)
    assert expected(right).estimate == pytest.approx(whole.estimate, abs=1e-12)


def test_a_correction_keeps_to_what_is_possible() -> None:
    plain = mean_interval(rows(7, 100, (0.97,))[0])
    raised = corrected(plain, -0.5)
    assert raised.estimate == 1.0 and raised.high == 1.0
    assert corrected(plain, 0.0) == plain
    wide = corrected(plain, 0.01, 1.5)
    assert wide.estimate == pytest.approx(plain.estimate - 0.01) and wide.se == pytest.approx(1.5 * plain.se)
    for bad in ((np.nan, 1.0), (0.0, 0.0)):
        with pytest.raises(ValueError, match="positive factor"):
            corrected(plain, *bad)


def test_what_cannot_be_compared_is_refused() -> None:
    right = rows(8, 20, (0.5, 0.6))
    with pytest.raises(ValueError, match="2 rows of outcomes need as many different names, not a, a"):
        choose(right, ["a", "a"])
    with pytest.raises(ValueError, match="2 rows of outcomes need as many"):
        choose(right, ["a"])
    for bad in (right[:, :1], right[0], right[:0]):
        with pytest.raises(ValueError, match="at least one method and two images"):
            expected(bad)
    with pytest.raises(ValueError, match=r"right \(1\) or wrong \(0\)"):
        choose(right * 0.5, "ab")
    with pytest.raises(ValueError, match="need the same images"):
        choose(right, "ab", {"c": right[0, :5]})
    with pytest.raises(ValueError, match="at least one resample"):
        expected(right, resamples=0)
    with pytest.raises(ValueError, match="level is a probability"):
        expected(right, level=1.0)
    with pytest.raises(ValueError, match="vector of labels"):
        commonest([])
