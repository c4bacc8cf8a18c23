"""The threshold of abstention is the largest set whose bound holds together with those of all other sets."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, binom

from bench.stats import threshold
from bench.stats.abstain import allowed_errors, joint_tail, passing


@pytest.mark.parametrize(("images", "error", "tail"), [(400, 0.05, 0.013), (300, 0.2, 0.05), (120, 0.5, 0.3)])
def test_as_many_mistakes_are_allowed_as_the_exact_bound_of_clopper_and_pearson_lets_pass(
    images: int, error: float, tail: float
) -> None:
    found = allowed_errors(images, error, tail)
    for number in range(1, images + 1):
        e = np.arange(number)
        bounds = beta.ppf(1 - tail, e + 1, number - e)
        assert found[number - 1] == (bounds <= error).sum() - 1


def test_the_probability_of_passing_is_that_of_simulated_mistakes() -> None:
    rng, repetitions = np.random.default_rng(0), 20_000
    allowed = allowed_errors(250, 0.05, 0.05)
    wrong = (rng.random((repetitions, 250)) < 0.05).cumsum(1)
    seen = (wrong <= allowed).any(1).mean()
    assert passing(250, 0.05, allowed) == pytest.approx(seen, abs=4 * np.sqrt(0.15 * 0.85 / repetitions))
    assert seen > 0.10, "sets that are bounded one by one pass more often than 5 %"


@pytest.mark.parametrize("images", [59, 100, 300, 1000])
@pytest.mark.parametrize("error", [0.05, 0.1])
def test_all_sets_together_pass_by_luck_as_often_as_was_asked(images: int, error: float) -> None:
    tail = joint_tail(images, error, 0.95)
    at_most = passing(images, error, allowed_errors(images, error, tail))
    higher = passing(images, error, allowed_errors(images, error, tail * 1.001))
    assert at_most <= 0.05 < higher or tail == pytest.approx(0.05)
    assert 0.05 / images < tail <= 0.05 + 1e-12


def test_one_set_alone_is_held_to_the_plain_bound() -> None:
    """With 59 images only the set of all can pass, if none is wrong: nothing has to hold together."""
    sure = np.linspace(1.0, 0.5, 59)
    assert binom.cdf(0, 58, 0.05) > 0.05 > binom.cdf(0, 59, 0.05)
    assert threshold(sure, np.ones(59, dtype=bool)) == 0.5
    assert threshold(sure[:58], np.ones(58, dtype=bool)) is None
    assert threshold(sure, np.arange(59) > 0) is None


def test_the_largest_set_that_passes_sets_the_threshold() -> None:
    sure = np.random.default_rng(1).permutation(np.linspace(0.2, 1.0, 400))
    right = sure > 0.6  # the upper half is right, the lower half wrong
    found = threshold(sure, right)
    assert found is not None and 0.57 < found < 0.6
    answered = sure >= found
    number, wrong = int(answered.sum()), int((answered & ~right).sum())
    allowed = allowed_errors(400, 0.05, joint_tail(400, 0.05, 0.95))
    assert wrong == allowed[number - 1], "one more image would be one mistake too many"
    stricter, looser = threshold(sure, right, 0.02), threshold(sure, right, 0.2)
    assert stricter is not None and looser is not None and stricter > found > looser
    assert threshold(sure, right, level=0.8) == pytest.approx(found, abs=0.02)


def test_a_mistake_among_the_surest_does_not_end_the_search() -> None:
    sure = np.linspace(1.0, 0.5, 500)
    right = np.ones(500, dtype=bool)
    right[:2] = False
    assert threshold(sure, right) == 0.5


def test_images_of_equal_confidence_are_answered_together_or_not_at_all() -> None:
    sure = np.r_[np.full(100, 0.9), np.full(100, 0.8)]
    right = np.r_[np.ones(100, dtype=bool), np.zeros(100, dtype=bool)]
    for order in (np.arange(200), np.arange(200)[::-1]):
        assert threshold(sure[order], right[order]) == 0.9
    right[90:100] = False  # the first 90 would pass without their equals
    assert threshold(sure, right) is None
    assert threshold(sure, np.ones(200, dtype=bool)) == 0.8


def test_there_is_none_where_all_err_too_often_or_where_there_are_no_images() -> None:
    rng = np.random.default_rng(2)
    assert threshold(rng.random(500), rng.random(500) < 0.8) is None
    assert threshold([], []) is None


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not \(3,\) and \(2,\)"):
        threshold([0.1, 0.2, 0.3], [True, False])
    with pytest.raises(ValueError, match="NaN or infinite; leave out"):
        threshold([0.1, np.nan], [True, False])
    for bad in ({"at_error": 0.0}, {"at_error": 1.0}, {"level": 1.0}, {"level": 0.0}):
        with pytest.raises(ValueError, match="shares between 0 and 1"):
            threshold([0.1, 0.2], [True, False], **bad)
