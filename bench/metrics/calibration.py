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


def bias(confidence: Array, right: NDArray[np.bool_], binned: Binned) -> float:
    """Return by how much the error is expected to exceed that of endless images, at the same confidences.

    A gap d that is known with the standard error s looks like |d + s z|, whose mean exceeds |d|. Example: a
    perfectly calibrated bin of 100 images at confidence 0.5 shows a gap of 4 points on average. In place of
    the unknown d^2 stands its unbiased estimate, observed gap^2 - s^2, or 0 where that is negative. The
    variance of right predictions is taken at the bin's share of right predictions, with half an image added
    on each side, because a bin of three images that are all right is not known to be perfect.
    """
    inside = binned.inside
    count = np.bincount(binned.bin, inside, binned.number)
    gap = np.bincount(binned.bin, np.where(inside, confidence - right, 0.0), binned.number)
    hits = np.bincount(binned.bin, inside & right, binned.number)
    share = (hits + 0.5) / (count + 1)
    spread = np.sqrt(count * share * (1 - share))  # of the sum of gaps, in images
    size = np.sqrt(np.maximum(gap**2 - spread**2, 0.0))
    z = np.divide(size, spread, out=np.zeros_like(size), where=spread > 0)
    folded = spread * np.sqrt(2 / np.pi) * np.exp(-(z**2) / 2) + size * (1 - 2 * special.ndtr(-z))
    return float((folded - size).sum() / len(confidence))


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
