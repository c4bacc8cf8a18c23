"""Compute calibration errors: how far confidence and accuracy are apart.

A binned error sorts the n images into bins by confidence. With N_b images in bin b it is

    sum over b of (N_b / n) |mean confidence in b - share of right predictions in b|

Three conventions are kept apart, because they give different numbers:

- ``ece``: 15 bins of equal width, closed on the right (Guo et al. 2017). Confidence 0 is in the first bin.
- ``ece-cal``: 10 bins of equal width, closed on the left, as computed by CLIP_Calibration (protocol 24.5). An
  image of confidence exactly 1 counts in N_b of the last bin but not in its means.
- ``ece-mass``: 15 bins with edges at the quantiles of confidence (linear interpolation), closed on the right.

Example: of 100 images all have confidence 0.9 and 80 are right. Every convention gives 0.1.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bench.metrics.outputs import Array, Outputs

BINS = 15
CAL_BINS = 10
Index = NDArray[np.int64]


class Binned(NamedTuple):
    """The images of an evaluation by bin.

    ``bin`` (n,): the bin of each image. ``inside`` (n,): whether it counts in the means of its bin.
    ``edges`` (B + 1,): where the bins begin and end.
    """

    bin: Index
    inside: NDArray[np.bool_]
    edges: Array

    @property
    def number(self) -> int:
        """The number of bins."""
        return len(self.edges) - 1


def bins(confidence: Array, number: int = BINS, closed: str = "right") -> Binned:
    """Return equal-width bins of confidences (n,) between 0 and 1; bin j is from j / number on.

    ``closed`` is "right" (0 belongs to the first bin), or "left" with the quirk of protocol 24.5: a
    confidence of exactly 1 belongs to the last bin but does not count in its means. Raises
    ValueError for another word.
    """
    edges = np.linspace(0.0, 1.0, number + 1)
    if closed == "right":
        place = np.searchsorted(edges, confidence, side="left") - 1
    elif closed == "left":
        place = np.searchsorted(edges, confidence, side="right") - 1
    else:
        raise ValueError(f'bins are closed "right" or "left", not "{closed}"')
    inside = place < number
    return Binned(np.clip(place, 0, number - 1), inside, edges)


_equal_width = bins  # `reliability` has an argument of that name


def mass_bins(confidence: Array, number: int = BINS) -> Binned:
    """Return bins with edges at the quantiles of confidences (n,), closed on the right.

    Equal confidences share a bin, so a bin may be empty.
    """
    edges = np.quantile(confidence, np.linspace(0.0, 1.0, number + 1))
    place = np.searchsorted(edges[1:-1], confidence, side="left")
    return Binned(place, np.ones(len(confidence), dtype=bool), edges)


def influence(confidence: Array, right: NDArray[np.bool_], binned: Binned) -> Array:
    """Return a value per image (n,) whose mean is the error, and whose variance is n times its variance.

    With the bins fixed, it is the error plus n times its derivative by the weight of the image. For an
    ordinary bin this is plus or minus (confidence - right), with the sign of the gap of its bin.
    """
    gap = confidence - right
    counted = np.bincount(binned.bin, minlength=binned.number)
    inside = np.bincount(binned.bin, binned.inside, binned.number)
    total = np.bincount(binned.bin, np.where(binned.inside, gap, 0.0), binned.number)
    mean = np.divide(total, inside, out=np.zeros_like(total), where=inside > 0)
    share = np.divide(counted, inside, out=np.ones_like(total), where=inside > 0)
    size = np.abs(mean)[binned.bin]
    move = share[binned.bin] * (np.sign(mean)[binned.bin] * gap - size)
    return np.asarray(size + np.where(binned.inside, move, 0.0))


def error(confidence: Array, right: NDArray[np.bool_], binned: Binned) -> float:
    """Return the binned calibration error, from 0 to 1."""
    return float(influence(confidence, right, binned).mean())


def excess(confidence: Array, right: NDArray[np.bool_], binned: Binned) -> float:
    """Return by how much, at most, the error is expected to exceed that of endless images.

    A gap d that is known with the standard error s looks like |d + s z|, whose mean exceeds |d|. Example: a
    perfectly calibrated bin of 100 images at confidence 0.5 shows a gap of 4 points on average. The smaller
    d, the larger the excess. Therefore |observed gap| - s stands in place of the unknown |d|, or 0 where
    that is negative. s^2 is the larger of two variances of right predictions: that at their share in the bin,
    and that at the stated confidences, because a bin of three images that are all right may not be perfect.
    """
    inside = binned.inside
    sum_of = partial(np.bincount, binned.bin, minlength=binned.number)
    count, hits = sum_of(weights=inside), sum_of(weights=inside & right)
    gap = np.abs(sum_of(weights=np.where(inside, confidence - right, 0.0)))
    stated = sum_of(weights=np.where(inside, confidence * (1 - confidence), 0.0))
    shown = hits * (1 - np.divide(hits, count, out=np.ones_like(hits), where=count > 0))
    spread = np.sqrt(np.maximum(shown, stated))  # of the sum of gaps, in images
    size = np.maximum(gap - spread, 0.0)
    # Beyond 40 standard errors, and where nothing is uncertain, chance adds nothing.
    z = np.divide(np.minimum(size, 40 * spread), spread, out=np.full_like(size, 40.0), where=spread > 0)
    folded = spread * np.sqrt(2 / np.pi) * np.exp(-(z**2) / 2) + size * (1 - 2 * special.ndtr(-z))
    return float(np.maximum(folded - size, 0.0).sum() / len(confidence))


@dataclass(frozen=True, eq=False)
class Reliability:
    """Confidence and accuracy by bin (B,): number of images, mean confidence, share of right predictions.

    The means of an empty bin are NaN. ``edges`` (B + 1,).
    """

    edges: Array
    count: Index
    confidence: Array
    accuracy: Array


def reliability(outputs: Outputs, after: bool = False, bins: int = BINS) -> Reliability:
    """Return the reliability diagram of one fit, over equal-width bins that are closed on the right.

    The sum of count / n x |confidence - accuracy| is ``ece`` (with ``after``: ``ece-after``).
    """
    confidence, right = outputs.confidence(after), outputs.right
    binned = _equal_width(confidence, bins)
    count = np.bincount(binned.bin, minlength=binned.number)
    means = [
        np.divide(total, count, out=np.full(binned.number, np.nan), where=count > 0)
        for total in (
            np.bincount(binned.bin, confidence, binned.number),
            np.bincount(binned.bin, right, binned.number),
        )
    ]
    return Reliability(binned.edges, count, *means)
