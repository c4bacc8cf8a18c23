"""Find the confidence from which predictions err rarely enough, on images that no model was trained on.

A classifier answers where its confidence is high and abstains elsewhere. Held-out images say from which
confidence on its answers are wrong in at most 5 of 100 cases: those above a threshold are a sample of all
images above it, so the exact upper bound of Clopper and Pearson (1934) holds for their error.

The threshold however is searched. Each image ends one more set of the most confident ones, and the largest
set whose bound is low enough wins. Among hundreds of sets, some bound is low by luck: with 600 images, a
classifier that errs in 5 % of its answers at every confidence passes in 20 of 100 samples, where 5 are
claimed. So the bounds of all sets have to hold together. Each is taken at the one level at which such a
classifier passes any of them in at most 5 of 100 samples. The level is computed exactly, image by image.
Example: one set needs 59 images without a mistake for a bound of 5 %. With 300 images every set is held to
98.4 % in place of 95 %, so the smallest that passes has 81 images without a mistake.

This assumes that mistakes become no rarer as confidence falls. Then an error that is too high at one
threshold is too high at all lower ones, and mistakes come there at least as often as in the computation.
Nothing is promised for a classifier that is surest of what it gets wrong.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special


def threshold(
    confidence: ArrayLike, right: ArrayLike, at_error: float = 0.05, level: float = 0.95
) -> float | None:
    """Return the confidence from which on at most `at_error` of the answers are wrong, or None.

    `confidence` (n,): of each held-out image, the probability of the class that is named, or any number that
    rises with it. `right` (n,): whether that class is the true one. An image is answered if its confidence is
    at least the threshold. The true share of wrong answers is then above `at_error` with a probability of at
    most 1 - `level`, over samples of images. Images of equal confidence are answered together or not at all.
    None: no threshold holds that, so that nothing may be answered. Raises ValueError for shapes that do not
    fit, confidences that are not finite, and an error or a level outside (0, 1).
    """
    sure, hits = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=bool)
    if sure.ndim != 1 or sure.shape != hits.shape:
        raise ValueError(
            f"a threshold takes one confidence and one outcome per image, not {sure.shape} and {hits.shape}"
        )
    if not np.isfinite(sure).all():
        raise ValueError("a confidence is NaN or infinite; leave out images without a prediction")
    allowed = allowed_errors(len(sure), at_error, joint_tail(len(sure), at_error, level))
    order = np.argsort(-sure, kind="stable")
    ranked = sure[order]
    ends = np.append(ranked[:-1] > ranked[1:], True)[
        : len(ranked)
    ]  # images of equal confidence stay together
    passed = np.flatnonzero(ends & (np.cumsum(~hits[order]) <= allowed))
    return float(ranked[passed[-1]]) if len(passed) else None


def allowed_errors(images: int, at_error: float, tail: float) -> NDArray[np.int64]:
    """Return for 1 to `images` answers how many may be wrong, -1 where none may.

    With so many, the upper bound of Clopper and Pearson, which errs with probability `tail`, is at most
    `at_error`: so few mistakes or fewer are seen with a probability of at most `tail` if the true share is
    `at_error`.
    """
    number = np.arange(1, images + 1)
    guess = special.bdtrik(tail, number, at_error)  # a real number, NaN or below 0 where none may be wrong
    most = np.floor(np.nan_to_num(guess, nan=-1.0)).clip(-1, None)
    # Its rounding may be off by one at a step.
    most -= special.bdtr(most, number, at_error) > tail
    most += (most + 1 < number) & (special.bdtr(most + 1, number, at_error) <= tail)
    return np.asarray(most, dtype=np.int64)


def passing(images: int, at_error: float, allowed: NDArray[np.int64]) -> float:
    """Return the probability that any of the sets passes, if each answer errs with probability `at_error`.

    `allowed` (images,) is that of ``allowed_errors``. Numbers of mistakes that have passed nothing are
    carried on from image to image; those that pass are counted and leave.
    """
    size = int(allowed[-1]) + 2
    mass = np.zeros(size)  # by the number of mistakes; more than the last count may ever be cannot pass
    mass[0] = 1.0
    passed = 0.0
    for most in allowed.tolist():
        mass[1:] = (1 - at_error) * mass[1:] + at_error * mass[:-1]
        mass[0] *= 1 - at_error
        if most >= 0:
            passed += float(mass[: most + 1].sum())
            mass[: most + 1] = 0.0
    return passed


@lru_cache(maxsize=64)
def joint_tail(images: int, at_error: float, level: float) -> float:
    """Return the probability with which each bound may err, so that all of `images` sets hold together.

    All sets, of 1 to `images` answers, pass with a probability of at most 1 - `level`. Raises ValueError for
    an error or a level outside (0, 1).
    """
    if not (0 < at_error < 1 and 0 < level < 1):
        raise ValueError(f"error and level are shares between 0 and 1, not {at_error} and {level}")
    low, high = (
        np.log((1 - level) / max(images, 1)),
        np.log(1 - level),
    )  # Bonferroni's level, and that of one set
    if images == 0 or _passing_at(images, at_error, high) <= 1 - level:
        return 1 - level
    for _ in range(16):
        middle = (low + high) / 2
        fits = _passing_at(images, at_error, middle) <= 1 - level
        low, high = (middle, high) if fits else (low, middle)
    return float(np.exp(low))


def _passing_at(images: int, at_error: float, log_tail: float) -> float:
    return passing(images, at_error, allowed_errors(images, at_error, float(np.exp(log_tail))))
