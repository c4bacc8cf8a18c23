"""Simulate outcomes of few-shot runs whose true accuracies are known. It imports nothing of the program.

Tests use it to measure how often intervals, p-values, marks and the gate are wrong. The model is a latent
probit: method m classifies image i of class c correctly under seed s if

    mu[m, c] + image[i] + image[m, i] + draw[s] + draw[m, s] + draw[c, s] + draw[m, c, s] + noise[m, s, i] > 0

A term without m is one number for all methods, because they see the same images and get the same support set.
Every term but mu is normal and drawn anew in every repetition. Methods and classes are fixed: mu[m, c] is
the sum of a constant of the method and of the effects of class c. The constant is chosen such that the
accuracy of the method, over all images, draws and noise, is exactly the given one. Each repetition has a
dataset of its own, with other effects of classes.

All terms together have variance 1. ``Shares`` says how much of it each term has. The numbers come from the
committed records (``tests/stats/components.py``).

Legend: D datasets, R repetitions, M methods, S seeds, n images, C classes, K images per class.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[Any]
CLASSES = 20


@dataclass(frozen=True)
class Shares:
    """The share of each term in the latent variance; the noise has the rest.

    ``shared`` terms are equal for all methods, ``own`` terms belong to one method.
    """

    class_shared: float
    class_own: float
    image_shared: float
    image_own: float
    draw_shared: float
    draw_own: float
    class_draw_shared: float
    class_draw_own: float

    @property
    def classes(self) -> float:
        """The share of the effects of classes."""
        return self.class_shared + self.class_own

    @property
    def draws(self) -> float:
        """The share of everything that a draw changes."""
        return self.draw_shared + self.draw_own + self.class_draw_shared + self.class_draw_own

    @property
    def noise(self) -> float:
        """The share of the noise."""
        return 1 - self.classes - self.draws - self.image_shared - self.image_own


# Percent of the latent variance: the 10 % quantile, the median and the 90 % quantile over 16,550 pairs of
# methods, as `python -m tests.stats.components results/pocket` prints them. The records have three seeds, so
# the estimates are noisy and the quantiles are wider than those of the true shares.
RECORDED = {
    "class_shared": (4.53, 23.18, 40.21),
    "class_own": (-0.21, 2.41, 12.52),
    "image_shared": (16.50, 38.00, 66.77),
    "image_own": (-0.96, 4.83, 17.11),
    "draw_shared": (-0.30, 0.00, 0.34),
    "draw_own": (-0.43, -0.02, 0.52),
    "class_draw_shared": (-0.42, 0.51, 5.29),
    "class_draw_own": (0.87, 3.77, 11.11),
}


def _shares(**places: int) -> Shares:
    """Return the recorded medians, or for terms whose name begins with a given word another quantile."""
    found = {}
    for name, quantiles in RECORDED.items():
        place = next((at for word, at in places.items() if name.startswith(word)), 1)
        found[name] = max(0.0, quantiles[place]) / 100
    return Shares(**found)


@dataclass(frozen=True)
class Regime:
    """A kind of experiment: variance shares, the accuracy as a fraction, and the number of test images."""

    shares: Shares
    accuracy: float = 0.65
    images: int = 200


REGIMES = {
    "typical": Regime(_shares()),
    "seeds dominate": Regime(_shares(draw=2, class_draw=2, image=0)),
    "images dominate": Regime(_shares(draw=0, class_draw=0, image=2, class_shared=0)),
    "few images": Regime(_shares(), images=60),
    "accuracy 97 %": Regime(_shares(), accuracy=0.97),
}


class Simulated(NamedTuple):
    """Outcomes (D, R, M, S, n), and the true accuracies (D, R, M) for these very draws on all images."""

    right: NDArray[np.bool_]
    of_draws: NDArray[np.float64]


def simulate(
    rng: np.random.Generator,
    shares: Shares,
    accuracies: ArrayLike,
    *,
    repetitions: int,
    seeds: int,
    images: int,
    datasets: int = 1,
    one_fit: bool = False,
    classes: int = CLASSES,
) -> Simulated:
    """Simulate methods whose true accuracies are given, as (M,) or as (D, M).

    ``one_fit``: the datasets are test sets of one fit, so they share everything that a draw changes. Raises
    ValueError if the classes cannot have equally many images.
    """
    wanted_DM = np.asarray(accuracies, np.float64)
    wanted_DM = np.broadcast_to(wanted_DM, (datasets, wanted_DM.shape[-1]))
    methods = wanted_DM.shape[1]
    right = np.empty((datasets, repetitions, methods, seeds, images), bool)
    of_draws = np.empty((datasets, repetitions, methods))
    draws_RMSC = _draws(rng, shares, repetitions, methods, seeds, classes)
    for d in range(datasets):
        if d and not one_fit:
            draws_RMSC = _draws(rng, shares, repetitions, methods, seeds, classes)
        mean_RMC = _means(rng, shares, wanted_DM[d], repetitions, classes)
        latent_RMSC = mean_RMC[:, :, None] + draws_RMSC
        spread = np.sqrt(1 - shares.classes - shares.draws)
        of_draws[d] = special.ndtr(latent_RMSC.astype(np.float64) / spread).mean((2, 3))
        image_RM1KC = _image_effects(rng, shares, repetitions, methods, images, classes)
        latent = _normal(rng, shares.noise, (repetitions, methods, seeds, *image_RM1KC.shape[3:]))
        latent += latent_RMSC[:, :, :, None]
        latent += image_RM1KC
        right[d] = (latent > 0).reshape(right[d].shape)
    return Simulated(right, of_draws)


def _normal(rng: np.random.Generator, share: float, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(share))


def _draws(rng: np.random.Generator, shares: Shares, r: int, m: int, s: int, c: int) -> Array:
    """Return the sum of all effects of draws (R, M, S, C)."""
    return np.asarray(
        _normal(rng, shares.draw_shared, (r, 1, s, 1))
        + _normal(rng, shares.draw_own, (r, m, s, 1))
        + _normal(rng, shares.class_draw_shared, (r, 1, s, c))
        + _normal(rng, shares.class_draw_own, (r, m, s, c))
    )


def _means(rng: np.random.Generator, shares: Shares, wanted_M: Array, r: int, c: int) -> Array:
    """Return latent means (R, M, C) with effects of classes, whose accuracies are the wanted ones."""
    m = len(wanted_M)
    effects_RMC = _normal(rng, shares.class_shared, (r, 1, c)) + _normal(rng, shares.class_own, (r, m, c))
    return with_accuracy(effects_RMC.astype(np.float64), wanted_M, shares).astype(np.float32)


def with_accuracy(effects_RMC: Array, wanted_M: Array, shares: Shares) -> Array:
    """Return the effects of classes, shifted so that each method has the wanted accuracy."""
    spread = np.sqrt(1 - shares.classes)
    shift_RM1 = np.broadcast_to(special.ndtri(wanted_M)[:, None], (*effects_RMC.shape[:2], 1)).copy()
    for _ in range(20):  # Newton's method, with steps that cannot overshoot far
        z_RMC = (effects_RMC + shift_RM1) / spread
        miss = special.ndtr(z_RMC).mean(-1, keepdims=True) - wanted_M[:, None]
        slope = np.exp(-(z_RMC**2) / 2).mean(-1, keepdims=True) / (spread * np.sqrt(2 * np.pi))
        shift_RM1 -= np.clip(miss / slope, -0.5, 0.5)
        if np.abs(miss).max() < 1e-9:
            break
    return np.asarray(effects_RMC + shift_RM1)


def _image_effects(rng: np.random.Generator, shares: Shares, r: int, m: int, images: int, c: int) -> Array:
    """Return the effects of images (R, M, 1, K, C)."""
    if images % c:
        raise ValueError(f"{images} images cannot be split evenly into {c} classes")
    shape = (1, images // c, c)
    shared = _normal(rng, shares.image_shared, (r, 1, *shape))
    return np.asarray(shared + _normal(rng, shares.image_own, (r, m, *shape)))


class Rerun(NamedTuple):
    """Predicted classes (S, n) of a method on a dataset before and after, and the true classes (n,)."""

    old: NDArray[np.uint16]
    new: NDArray[np.uint16]
    labels: NDArray[np.uint16]


@dataclass(frozen=True)
class Change:
    """What differs between the old run and the new one.

    ``flips``: the share of predictions that rounding changes. ``chaotic``: the methods that choose other
    hyper-parameters on another machine. ``chaos``: the standard deviation of new minus old accuracy of one of
    their seeds, as a fraction. ``reselected``: the share of their predictions that differ besides.
    ``drops``: by method, how much lower the true accuracy of the new run is, as a fraction.
    """

    flips: float = 0.003
    chaotic: Collection[int] = ()
    chaos: float = 0.02
    reselected: float = 0.05
    drops: Mapping[int, float] = field(default_factory=dict)


def rerun(
    rng: np.random.Generator,
    regime: Regime,
    change: Change,
    *,
    methods: int,
    datasets: int,
    seeds: int,
    classes: int = CLASSES,
) -> list[list[Rerun]]:
    """Simulate one old and one new run of methods on datasets, the first index being the method.

    Both runs have the same images and draws. Without a drop they have the same true accuracies, because flips
    go in both directions equally often. A third of the flips changes a wrong class to another wrong class.
    """
    shares, labels = regime.shares, (np.arange(regime.images) % classes).astype(np.uint16)
    accuracy_M = np.full(methods, regime.accuracy)
    dropped_M = accuracy_M - [change.drops.get(m, 0.0) for m in range(methods)]
    share_M = np.array([change.reselected if m in change.chaotic else change.flips for m in range(methods)])
    chaos_M = np.array([change.chaos if m in change.chaotic else 0.0 for m in range(methods)])
    # A difference of accuracies as a latent shift, halved between the runs so that they are alike.
    density = np.exp(-(special.ndtri(regime.accuracy) ** 2) / 2) / np.sqrt(2 * np.pi)
    shift_MS1 = np.broadcast_to(chaos_M[:, None, None] / density / np.sqrt(2), (methods, seeds, 1))
    # Two standard normal numbers with correlation cos(a) lie on two sides of mu with probability of about
    # a exp(-mu^2 / 2) / pi.
    angle_M = np.pi * (2 / 3) * share_M * np.exp(special.ndtri(regime.accuracy) ** 2 / 2)
    kept_M11 = 1 - (1 - np.cos(angle_M))[:, None, None] / shares.noise
    if (kept_M11 < 0).any():
        raise ValueError("so many flips cannot come from the noise")
    silent_M11 = np.minimum(share_M / 3 / (1 - regime.accuracy), 1)[:, None, None]
    found: list[list[Rerun]] = [[] for _ in range(methods)]
    for _ in range(datasets):
        old_mean = _means(rng, shares, accuracy_M, 1, classes)
        new_mean = with_accuracy(old_mean.astype(np.float64), dropped_M, shares)
        draws = _draws(rng, shares, 1, methods, seeds, classes)
        image_effects = _image_effects(rng, shares, 1, methods, regime.images, classes)
        base = draws[0][:, :, labels] + image_effects.reshape(methods, 1, regime.images)
        noise = rng.standard_normal(base.shape)
        other = kept_M11 * noise + np.sqrt(1 - kept_M11**2) * rng.standard_normal(base.shape)
        wrong = rng.integers(1, classes, base.shape)
        rewrong = np.where(rng.random(base.shape) < silent_M11, rng.integers(1, classes, base.shape), wrong)
        runs = []
        for mean, own, offset in ((old_mean, noise, wrong), (new_mean, other, rewrong)):
            latent = base + np.sqrt(shares.noise) * own + np.asarray(mean)[0][:, None, labels]
            latent = latent + shift_MS1 * rng.standard_normal(shift_MS1.shape)
            runs.append(np.where(latent > 0, labels, (labels + offset) % classes).astype(np.uint16))
        for m in range(methods):
            found[m].append(Rerun(runs[0][m], runs[1][m], labels))
    return found
