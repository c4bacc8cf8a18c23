"""Extrapolate a learning curve: what more labels would bring (fractions).

A method is trained on several numbers of images, and each time all images are predicted by a model that did
not see them. A few points do not say how a curve goes on. So it is followed by two laws between which most
curves lie, with b >= 0, because more labels do no harm on average:

    error(N) = a N^-b        the error falls to 0 in the end (Hestness et al. 2017)
    error(N) = a + b / N     it falls quickly to what this method cannot do (Fukunaga and Hayes 1989)

The second promises less. The estimate is the mean of the two, and the interval holds the percentiles of both
in a bootstrap over images, so that it is as wide as what nobody knows about the law. Each law's interval is
``WIDER`` than that, because other training images would move the curve too, which no bootstrap of the
outcomes shows. The simulation of tests/stats/test_curve.py holds the whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.stats.choice import outcomes, patterns, samples

Array = NDArray[np.float64]
WIDER = 1.3  # how much wider the percentiles of a law are made


@dataclass(frozen=True)
class MoreLabels:
    """What a method is expected to reach with more training images, in fractions.

    `size`: how many training images. `accuracy` and `gain`: with these, and how much it is above the curve at
    the most images that were tried, each with the ends of its interval at `level`.
    """

    size: float
    accuracy: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    level: float = 0.95


def more_labels(
    sizes: Sequence[float],
    right: ArrayLike,
    factor: float = 2.0,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 1,
) -> MoreLabels:
    """Return what `factor` times as many training images as the largest of `sizes` would bring.

    `sizes` (P,): different numbers of training images. `right` (P, n): for each, right or wrong of the same
    images, by models that did not see them. The interval speaks of other images, and in the
    simulation of other training images too. It says nothing of a curve that bends where nothing was measured,
    such as that of a method whose settings depend on the number of images.
    Raises ValueError for fewer than two different sizes, shapes that do not fit, a factor below 1, a level
    outside (0, 1), or fewer than 100 resamples.
    """
    y, x = outcomes(right), np.asarray(sizes, dtype=np.float64)
    if x.shape != (len(y),) or len(x) < 2 or len(np.unique(x)) < len(x) or not (x > 0).all():
        raise ValueError(
            "a learning curve takes two or more different numbers of training images, one for each of "
            f"{len(y)} rows of outcomes, not {list(sizes)}"
        )
    if not (1 <= factor < np.inf and 0 < level < 1 and resamples >= 100):
        raise ValueError(
            "a curve is followed to a factor of 1 or more, at a level between 0 and 1, with 100 resamples or "
            f"more, not {factor}, {level} and {resamples}"
        )
    images = y.shape[1]
    kinds, times = patterns(y)
    wrong = (~kinds).T.astype(np.float64)
    rng = np.random.default_rng(seed)
    resampled = np.concatenate([counts @ wrong for counts in samples(times, resamples, rng)])
    laws, tails = (_power, _inverse), ((1 - level) / 2, (1 + level) / 2)
    now, then = np.mean([law(x, (times @ wrong)[None], images, factor) for law in laws], axis=0)
    reached, gained = [], []
    for law in laws:
        before, after = law(x, resampled, images, factor)
        reached.append(_widened(1 - after, tails).clip(0.0, 1.0))
        gained.append(_widened(before - after, tails).clip(0.0, 1.0))
    ends, gains = np.stack(reached), np.stack(gained)
    return MoreLabels(
        float(factor * x.max()),
        float(1 - then[0]),
        float(ends[:, 0].min()),
        float(ends[:, 1].max()),
        float(now[0] - then[0]),
        float(gains[:, 0].min()),
        float(gains[:, 1].max()),
        level,
    )


def _widened(values: Array, tails: tuple[float, float]) -> Array:
    """Return two percentiles (2,), moved away from the median."""
    middle = np.median(values)
    return np.asarray(middle + WIDER * (np.quantile(values, tails) - middle))


def _power(x: Array, wrong: Array, images: int, factor: float) -> tuple[Array, Array]:
    """Return the errors (B,) at the largest size and at `factor` times it, of a power law.

    `wrong` (B, P): mistakes of each sample at each size. Half a mistake and half a right answer are added, so
    that a size without a mistake has a logarithm. Logarithms are weighed by their precision.
    """
    error = (wrong + 0.5) / (images + 1)
    level, slope = _line(np.log(x / x.max()), np.log(error), error / (1 - error))
    now = np.exp(np.minimum(level, 0.0))
    return now, now * factor ** np.minimum(slope, 0.0)


def _inverse(x: Array, wrong: Array, images: int, factor: float) -> tuple[Array, Array]:
    """Return the same errors of a limit that is approached with one over the size."""
    level, slope = _line(1 - x.max() / x, wrong / images, np.ones_like(wrong))
    now = np.clip(level, 0.0, 1.0)
    return now, np.clip(now + np.minimum(slope, 0.0) * (1 - 1 / factor), 0.0, 1.0)


def _line(x: Array, y: Array, weights: Array) -> tuple[Array, Array]:
    """Return the value at 0 and the slope (B,) of the weighted least squares of y (B, P) on x (P,).

    Where the slope is not negative, the value is the weighted mean: the curve is then taken to be level.
    """
    total = weights.sum(1)
    middle, mean = (weights @ x) / total, (weights * y).sum(1) / total
    away = x - middle[:, None]
    slope = (weights * away * y).sum(1) / (weights * away**2).sum(1)
    return np.where(slope < 0, mean - slope * middle, mean), slope
