"""The simulated choice on folds is what it says: folds, held-out images, and a truth of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.stats import folds_simulated
from tests.stats.folds_simulated import FOLDS, METHODS, WORLDS, World, curve, repetition


def test_every_class_is_dealt_out_over_the_folds() -> None:
    labels = np.repeat(np.arange(4), (5, 11, 23, 40))
    fold = folds_simulated._stratified(labels, np.random.default_rng(0))
    for c in range(4):
        counts = np.bincount(fold[labels == c], minlength=FOLDS)
        assert counts.max() - counts.min() <= 1


def test_no_image_trains_the_model_that_tests_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that remembers its training images knows none of those it is tested on."""
    trained: list[np.ndarray] = []
    tested: list[np.ndarray] = []
    scored = folds_simulated._scored

    def remember(features: np.ndarray, labels: np.ndarray, prototypes: np.ndarray) -> folds_simulated.Head:
        trained.append(features)
        return METHODS["text"](features, labels, prototypes)

    def score(head: folds_simulated.Head, features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
        tested.append(features)
        return scored(head, features, labels)

    monkeypatch.setitem(METHODS, "remembers", remember)
    monkeypatch.setattr(folds_simulated, "_scored", score)
    repetition(World(60, ("remembers",)), np.random.default_rng(0))
    assert len(trained) == len(tested) == FOLDS
    for seen, held_out in zip(trained, tested, strict=True):
        assert len(seen) + len(held_out) == 60
        assert not set(map(tuple, seen)) & set(map(tuple, held_out))
    assert len(set(map(tuple, np.concatenate(tested)))) == 60, "each image is tested once"


def test_outcomes_and_truth_agree_within_chance_and_repeat() -> None:
    world = replace(WORLDS["4 mislabelled, 600 images"], images=3000)
    rep, again = (repetition(world, np.random.default_rng(1)) for _ in range(2))
    assert (rep.right == again.right).all()
    for m in range(len(world.methods)):
        assert rep.truth(m) == pytest.approx(rep.right[m].mean(), abs=4 * np.sqrt(0.06 * 0.94 / 3000))
        assert 0.9 < rep.truth(m) < 0.95, "one image in twenty has a wrong label"
    right, sure = rep.refitted(1)
    assert right.shape == sure.shape == (folds_simulated.FRESH,)
    assert right.mean() == pytest.approx(rep.truth(1), abs=0.01)
    assert ((sure > 1 / world.classes) & (sure <= 1)).all()


def test_a_curve_rises_with_its_training_images() -> None:
    sizes, right, now, then = curve(World(400), "ridge 1", (0.2, 1.0), 2.0, np.random.default_rng(2))
    assert sizes.tolist() == [64, 320] and right.shape == (2, 400)
    assert right[0].mean() < right[1].mean() and now < then
