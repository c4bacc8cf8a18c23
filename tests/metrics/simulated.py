"""Simulate few-shot classifiers whose true metrics are known. It imports nothing of the program.

An image of class c is x = centre[c] + noise, normal in d dimensions, so the probability of each class given x
is known. A draw of support images gives each fit centres of its own, centre + ``draw_sd`` x normal. The fit's
logits are ``scale`` times those of the true posterior, with its own centres in place of the true ones.
Without draws and at scale 1 it is perfectly calibrated; at a larger scale it is overconfident.

Truths are means over many draws, each over many images. There the known probability that a prediction is
right stands in place of right and wrong, so a perfectly calibrated fit has an error of exactly 0.

Legend: S seeds, n images, K classes, d dimensions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Answers(NamedTuple):
    """Log-probabilities (n, K) of one fit, and the class weights (n, K) of each image: 0 and 1, or known
    probabilities.
    """

    logp_nK: Array
    weight_nK: Array


@dataclass(frozen=True)
class World:
    """A dataset and a method: classes of unequal size, how far apart they are, how draws move the fit."""

    K: int = 10
    d: int = 6
    apart: float = 1.0
    draw_sd: float = 0.5
    scale: float = 1.5
    uneven: float = 1.0  # the largest class is this many times as frequent as the smallest
    key: int = 0

    @property
    def centres(self) -> Array:
        """Centres of the classes (K, d)."""
        return self.apart * np.random.default_rng(self.key).standard_normal((self.K, self.d))

    @property
    def prior(self) -> Array:
        """Frequencies of the classes (K,)."""
        size = np.geomspace(1.0, self.uneven, self.K)
        return np.asarray(size / size.sum())

    def images(self, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        """Labels (n,) and images (n, d)."""
        labels = rng.choice(self.K, size=n, p=self.prior)
        return labels, self.centres[labels] + rng.standard_normal((n, self.d))

    def fit(self, rng: np.random.Generator) -> Array:
        """The centres of a fit (K, d)."""
        return np.asarray(self.centres + self.draw_sd * rng.standard_normal((self.K, self.d)))

    def logp(self, x_nd: Array, centres_Kd: Array, scale: float) -> Array:
        """Log-probabilities (n, K) of images under given centres."""
        z = scale * (x_nd @ centres_Kd.T - (centres_Kd**2).sum(1) / 2 + np.log(self.prior))
        z -= z.max(1, keepdims=True)
        return np.asarray(z - np.log(np.exp(z).sum(1, keepdims=True)))

    def answers(self, x_nd: Array, labels: Array, fit: Array) -> Answers:
        """What a fit says about images whose labels are given."""
        return Answers(self.logp(x_nd, fit, self.scale), np.eye(self.K)[labels])

    def truths(
        self,
        metrics: Mapping[str, Callable[[Answers], float]],
        fits: int,
        images: int,
        one: Array | None = None,
    ) -> Array:
        """The true value of each metric: the mean over draws, or that of one given fit."""
        rng = np.random.default_rng([self.key, 1])
        rows = []
        for _ in range(fits):
            _, x = self.images(rng, images)
            known = np.exp(self.logp(x, self.centres, 1.0))
            fit = self.fit(rng) if one is None else one
            answers = Answers(self.logp(x, fit, self.scale), known)
            rows.append([formula(answers) for formula in metrics.values()])
        return np.asarray(np.mean(rows, axis=0))


Formula = Callable[[Answers], float]


def _best(a: Answers) -> tuple[Array, Array, Array]:
    best = a.logp_nK.argmax(1)
    places = np.arange(len(best))
    return best, np.exp(a.logp_nK[places, best]), a.weight_nK[places, best]


def ece(a: Answers) -> float:
    """Calibration error over bins (lo, hi], one after the other."""
    _, confidence, right = _best(a)
    total = 0.0
    for lo, hi in pairwise(np.arange(16) / 15):
        here = (confidence > lo) & (confidence <= hi)
        total += abs(confidence[here].sum() - right[here].sum())
    return float(total / len(right))


def ece_mass(a: Answers) -> float:
    """Calibration error over fifteen bins of equally many images, after sorting."""
    _, confidence, right = _best(a)
    order = np.argsort(confidence)
    parts = np.array_split((confidence - right)[order], 15)
    return float(sum(abs(part.sum()) for part in parts) / len(right))


def balanced(a: Answers) -> float:
    """The mean recall of the classes that occur."""
    best, _, right = _best(a)
    of = a.weight_nK.sum(0)
    hits = np.array([right[best == k].sum() for k in range(len(of))])
    return float((hits[of > 0] / of[of > 0]).mean())


def macro_f1(a: Answers) -> float:
    """The mean over occurring classes of the harmonic mean of precision and recall."""
    best, _, right = _best(a)
    scores = []
    for k, of in enumerate(a.weight_nK.sum(0)):
        taken = int((best == k).sum())
        if of + taken > 0:
            hits = right[best == k].sum()
            precision, recall = hits / max(taken, 1), hits / max(of, 1e-300)
            scores.append(2 * precision * recall / (precision + recall) if hits > 0 else 0.0)
    return float(np.mean(scores))


def aurc(a: Answers) -> float:
    """The mean over k of the share of errors among the k surest."""
    _, confidence, right = _best(a)
    wrong = 1 - right[np.argsort(-confidence)]
    return float(np.mean(np.cumsum(wrong) / np.arange(1, len(wrong) + 1)))


def nll(a: Answers) -> float:
    """The mean of -log p(true class)."""
    return float(-(a.weight_nK * a.logp_nK).sum(1).mean())


def brier(a: Answers) -> float:
    """The mean over images of the expected squared distance, summed over classes."""
    p = np.exp(a.logp_nK)
    return float(((p**2).sum(1) + (a.weight_nK * (1 - 2 * p)).sum(1)).mean())


FORMULAS: dict[str, Formula] = {
    "balanced": balanced,
    "macro-f1": macro_f1,
    "ece": ece,
    "ece-mass": ece_mass,
    "aurc": aurc,
    "nll": nll,
    "brier": brier,
}
WORLDS = {
    "overconfident": World(),
    "calibrated": World(draw_sd=0.0, scale=1.0),
    "nearly calibrated": World(draw_sd=0.25, scale=0.95),
    "underconfident": World(draw_sd=0.2, scale=0.5),
    "uneven classes": World(K=20, uneven=10.0, draw_sd=0.3),
    "accurate": World(apart=2.5, scale=1.2),
}
