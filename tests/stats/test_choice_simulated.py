"""The accuracy to expect and the threshold of abstention keep their word, with real methods on five folds.

``python -m tests.stats.choice_coverage`` prints the tables of docs/statistics.md. The bounds allow for the
chance of the simulation, three standard errors of a share.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tests.stats.choice_coverage import Found, held, mean, simulate
from tests.stats.folds_simulated import WORLDS

pytestmark = pytest.mark.slow
REPETITIONS = 200
CHANCE = 300 * float(np.sqrt(0.05 * 0.95 / REPETITIONS))  # in percent


@cache
def found(name: str) -> list[Found]:
    return simulate(WORLDS[name], REPETITIONS, np.random.default_rng(23))


@pytest.mark.parametrize("name", WORLDS)
def test_the_accuracy_to_expect_covers_the_true_one(name: str) -> None:
    covers = mean(found(name), "covers")
    print(f"{name}: covers {covers:.1f} %, excess {mean(found(name), 'left'):+.2f} points")
    assert covers >= 95 - CHANCE
    assert mean(found(name), "refitted_covers") >= 95 - CHANCE - 2, "a refit on all images differs little"


@pytest.mark.parametrize("name", WORLDS)
def test_answers_to_fresh_images_are_wrong_as_rarely_as_was_asked(name: str) -> None:
    print(f"{name}: held {held(found(name)):.1f} %, of the refit {held(found(name), 'refitted_error'):.1f} %")
    assert held(found(name)) >= 95 - CHANCE
    assert held(found(name), "refitted_error") >= 95 - CHANCE


def test_over_all_worlds_nominal_95_percent_are_92_to_98() -> None:
    worlds = [found(name) for name in WORLDS]
    assert 92 <= np.mean([mean(one, "covers") for one in worlds]) <= 98
    highest, plain, left = (
        np.mean([mean(one, kind) for one in worlds]) for kind in ("highest", "excess", "left")
    )
    assert abs(left) < 0.7 * plain and left < 0.5 * highest, (
        "the correction takes a good part of the excess off"
    )


def test_abstention_is_of_use_and_bounding_each_set_alone_is_not_enough() -> None:
    assert mean(found("8 accurate, 300 images"), "answered") > 80
    hard = found("4 mislabelled, 600 images")
    assert held(hard, "naive_error") < 90, "the largest set of many that pass alone errs too often"
    assert held(hard) >= 95 - CHANCE
