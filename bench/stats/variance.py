"""Compute the variance of a mean over seeds crossed with images, and what follows from it.

Model of one cell: outcome y[s, i] = mean + seed effect + image effect + interaction. With the mean squares of
the two-way table (seeds MS_S, images MS_I, interaction MS_R), the variance of the grand mean over S seeds and
n images is estimated without bias by (MS_S + MS_I - MS_R) / (S n). It is kept as two parts that cannot be
negative:

    seed part   MS_S / (S n)                 = seed variance / S + interaction / (S n);   degrees: S - 1
    image part  max(MS_I - MS_R, 0) / (S n)  = image variance / n;                        degrees: n - 1

So the interaction is counted once, and truncating the image part matters only if images hardly differ.
Independent noise alone makes MS_S as large as MS_R on average. If MS_S is below a quarter of MS_R, that is
luck, and the missing amount is added to the image part. Otherwise two seeds of equal accuracy would make an
interval of no width.

Means by seed of right and wrong answers are multiples of 1 / n. Two seeds of a few hundred images agree
exactly in 2 to 10 % of cells, and their seed part would be 0. The variance of this rounding, 1 / (12 n^2) in
each mean (Sheppard's correction), is therefore added to the seed part. Without it p-values below 0.1 % come 2
to 5 times too often at two seeds.

The half-width of an interval adds up the two parts, each with the quantile of its own degrees of freedom
(after Graybill and Wang 1980):

    half-width^2 = t(S - 1)^2 x seed part + t(n - 1)^2 x image part

One quantile for the sum, at joint degrees of freedom, is not sound. Three seeds leave the seed part 2 degrees
of freedom. If that part comes out small by chance, every rule that weights degrees by shares of the variance
reports many degrees, and small p-values come several times too often.

Several test sets may be scored with the same fits, as shifted test sets are. Such fits are one source: their
test sets share the effects of its seeds. The seed part of their average therefore comes from the averages of
each seed. Different sources count as independent, and their parts of one kind are pooled by Satterthwaite's
rule, with the plug-in squares replaced by unbiased ones (nu + 2 in the sum, 2 off at the end). This is exact
for one term and not too pessimistic for equal ones.

Axes: (..., S, n) with S seeds and n images. Any leading axes are independent tables.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]


class Parts(NamedTuple):
    """A mean and the two parts of its variance (squared fractions), as arrays of the leading shape."""

    estimate: Array
    seeds: Array
    images: Array
    seeds_df: Array  # 0 for one seed, which has no seed part
    images_df: Array


def table(outcomes: ArrayLike) -> NDArray[Any]:
    """Return outcomes as (..., S, n), a vector as one seed.

    Raises ValueError if they are empty, not finite, or of fewer than two images.
    """
    y = np.asarray(outcomes)
    y = y[None, :] if y.ndim == 1 else y
    if y.ndim < 2 or y.shape[-2] < 1 or y.shape[-1] < 2:
        raise ValueError(
            f"outcomes need at least one seed and two images, as (seeds, images); got shape {y.shape}"
        )
    if y.dtype.kind not in "bui" and not np.isfinite(y).all():
        raise ValueError(
            "outcomes hold a NaN or an infinity; leave out incomplete seeds before taking an interval"
        )
    return y


def mean_parts(outcomes: ArrayLike, level: float = 0.95) -> Parts:
    """Return the mean and the variance parts of tables (..., S, n).

    A table whose outcomes are all equal shows no variance, although its mean is not known exactly. There the
    image part is set so that the interval at `level` reaches as far as the exact binomial interval for no
    exception among n images, 1 - ((1 - level) / 2)^(1 / n).
    """
    return source_parts([table(outcomes)], level)


def source_parts(tables: Sequence[NDArray[Any]], level: float = 0.95) -> Parts:
    """Return the mean and the variance parts of the average over test sets of one source.

    Each table is (..., S, n_d), with the same seeds in the same order. Raises ValueError if the numbers of
    seeds differ.
    """
    if len({y.shape[-2] for y in tables}) > 1:
        raise ValueError("test sets of the same fits need the same seeds")
    s, several = tables[0].shape[-2], len(tables)
    found = [_squares(y, level) for y in tables]
    by_seed = np.mean([one.by_seed for one in found], axis=0)
    images, images_df = _pool_kind([one.images for one in found], [one.images_df for one in found])
    if s == 1:
        seeds = np.zeros_like(images)
    else:
        seeds = by_seed.var(-1, ddof=1) / s + np.sum([one.rounding for one in found], axis=0) / several**2
        noise = np.sum([one.interaction for one in found], axis=0) / several**2
        images = images + np.maximum(noise / 4 - seeds, 0.0)
    mean = by_seed.mean(-1)
    return Parts(mean, seeds, images, np.full_like(mean, s - 1), images_df)


class _Squares(NamedTuple):
    """What a table contributes to its source: means by seed (..., S), and its variances (...)."""

    by_seed: Array
    images: Array
    images_df: Array
    interaction: Array
    rounding: Array


def _squares(y: NDArray[Any], level: float) -> _Squares:
    s, n = y.shape[-2:]
    by_seed, by_image = y.mean(-1), y.mean(-2)
    mean = by_seed.mean(-1)
    total = np.maximum(np.square(y, dtype=np.float64).sum((-2, -1)) - s * n * mean**2, 0.0)
    ss_images = s * np.square(by_image - mean[..., None]).sum(-1)
    if s == 1:
        images, interaction = ss_images / (n - 1) / n, np.zeros_like(mean)
    else:
        ss_seeds = n * np.square(by_seed - mean[..., None]).sum(-1)
        interaction = np.maximum(total - ss_seeds - ss_images, 0.0) / ((s - 1) * (n - 1) * s * n)
        images = np.maximum(ss_images / ((n - 1) * s * n) - interaction, 0.0)
    exact = 1 - ((1 - level) / 2) ** (1 / n)
    constant = (y == y[..., :1, :1]).all((-2, -1))
    images = np.where(constant, (exact / special.stdtrit(n - 1, (1 + level) / 2)) ** 2, images)
    counts = (y == np.rint(y)).all((-2, -1)) & ~constant
    rounding = np.where(counts, 1 / (12 * n**2 * s), 0.0)
    return _Squares(by_seed, images, np.full_like(mean, n - 1), interaction, rounding)


def pool(sources: Sequence[Parts], weights: Sequence[float] | None = None) -> Parts:
    """Return the parts of a weighted average over sources, which count as independent of one another.

    `weights` sum to 1; without them all sources weigh the same.
    """
    if not sources:
        raise ValueError("an average needs at least one dataset")
    w = [1 / len(sources)] * len(sources) if weights is None else weights
    seeds, seeds_df = _pool_kind([p.seeds for p in sources], [p.seeds_df for p in sources], w)
    images, images_df = _pool_kind([p.images for p in sources], [p.images_df for p in sources], w)
    estimate = np.stack([p.estimate * weight for p, weight in zip(sources, w, strict=True)], -1).sum(-1)
    return Parts(estimate, seeds, images, seeds_df, images_df)


def _pool_kind(
    variances: Sequence[Array], dfs: Sequence[Array], weights: Sequence[float] | None = None
) -> tuple[Array, Array]:
    """Return the variance of a weighted sum of independent terms, and its degrees of freedom."""
    w = np.full(len(variances), 1 / len(variances)) if weights is None else np.asarray(weights)
    v, df = np.stack(variances, -1) * w**2, np.stack(dfs, -1)
    total = v.sum(-1)
    squares = (v**2 / (df + 2)).sum(-1)
    pooled = np.divide(total**2, squares, out=np.full_like(total, 2.0), where=squares > 0) - 2
    smallest = np.where(df > 0, df, np.inf).min(-1)
    floor = np.where(np.isfinite(smallest), smallest, 0.0)
    return total, np.maximum(pooled, floor)


def half_width(parts: Parts, level: float = 0.95) -> Array:
    """Return half the width of the interval at `level`."""
    return _reach(parts, np.asarray((1 - level) / 2))


def p_of(parts: Parts, value: float = 0.0) -> Array:
    """Return the two-sided p of "the true mean is `value`".

    It is 1 - level of the interval that just reaches the value. It is found by bisection of its logarithm. A
    p below 1e-150 is given as 0.
    """
    distance = np.abs(np.asarray(parts.estimate) - value)
    low, high = np.full(distance.shape, -150.0), np.zeros(distance.shape)
    for _ in range(45):
        middle = (low + high) / 2
        beyond = _reach(parts, 10.0**middle / 2) < distance
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    p: Array = np.where(high < -149.9, 0.0, 10.0**high)
    return np.where(distance == 0, 1.0, p)


def _reach(parts: Parts, tail: Array) -> Array:
    """Return how far the interval reaches that leaves out `tail` on each side."""
    t_seeds = special.stdtrit(np.maximum(parts.seeds_df, 1), tail)
    t_images = special.stdtrit(parts.images_df, tail)
    reach: Array = np.sqrt(t_seeds**2 * parts.seeds + t_images**2 * parts.images)
    return reach
