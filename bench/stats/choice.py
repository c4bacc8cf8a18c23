"""Choose a method by its outcomes on folds, and say what accuracy to expect of it (fractions).

Every image is predicted once, by the model of the fold that tests it. So a method has one row of outcomes.
Methods are compared image by image as one column of a table (bench.stats.best), with Tukey's critical value,
so that the luckiest of many equal methods is not taken for the best. They are ordered from the simplest to
the most complex, and the first that the data cannot tell from the best is chosen.

The accuracy of the chosen method is too high on average, because its luck helped to choose it. ``expected``
takes the mean excess off. The excess is measured by a bootstrap of the choice: images are drawn with
replacement, and the whole choice is made again. In the samples that choose this method too, its accuracy in
the sample is above its accuracy on all images by what being chosen adds.

Two other corrections were simulated and are not used. Out-of-sample accuracies of the methods that the
samples choose (Tsamardinos, Greasidou and Borboudakis 2018) mix methods of other accuracies into that of the
chosen one, and their percentiles are too wide, because a sample leaves out only 37 % of the images. The
excess of whatever method each sample chooses is not that of the chosen one.

Images are dependent, because each one also trains the models of the other folds. For the mean accuracy of the
five models the plain variance holds nearly (Bayle et al. 2020); ``WIDER`` is the rest, by the simulation of
tests/stats/test_choice_simulated.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.stats.best import column_marks, critical_value
from bench.stats.intervals import Interval, corrected, mean_interval
from bench.stats.paired import average_difference_intervals

WIDER = 1.05  # how much larger the standard error is than that of independent images
_TOGETHER = 1_000_000  # numbers of a block of samples, 8 MB


@dataclass(frozen=True)
class Standing:
    """How one method stands in a choice, in fractions.

    `accuracy`: over all images, with the interval of this method alone, not corrected for the choice.
    `as_good`: whether it is the best or cannot be told from it. `to_best`: the simultaneous interval of this
    method - best, None for the best. `over`: for each reference the interval of this method - reference.
    These intervals hold for all methods of a choice together, so their `level` is above 95 %.
    """

    name: str
    accuracy: Interval
    as_good: bool
    to_best: Interval | None
    over: Mapping[str, Interval]


@dataclass(frozen=True)
class Choice:
    """Which method is best by its mean, which one to take, and how all of them stand, in the order given."""

    best: str
    chosen: str
    standings: tuple[Standing, ...]

    @property
    def as_good(self) -> tuple[str, ...]:
        """Return the best and those that cannot be told from it, from the simplest on."""
        return tuple(one.name for one in self.standings if one.as_good)

    def standing(self, name: str) -> Standing:
        """Return how a method stands; KeyError for a name that was not compared."""
        for one in self.standings:
            if one.name == name:
                return one
        raise KeyError(name)


def choose(
    right: ArrayLike, names: Sequence[str], references: Mapping[str, ArrayLike] | None = None
) -> Choice:
    """Return the choice among methods, from the simplest to the most complex.

    `right` (M, n): whether each method is right on each image. `names`: M different ones, in the same order.
    `references`: right or wrong (n,) of what the methods should beat, such as zero-shot or always the
    commonest class (``commonest``). A reference that is itself a method under the same name is not compared
    with itself. Of equal means the first is the best. Raises ValueError for shapes that do not fit or fewer
    than two images.
    """
    y = outcomes(right)
    if len(names) != len(y) or len(set(names)) != len(names):
        raise ValueError(f"{len(y)} rows of outcomes need as many different names, not {', '.join(names)}")
    marks = column_marks({name: [row] for name, row in zip(names, y, strict=True)})
    over: dict[str, dict[str, Interval]] = {name: {} for name in names}
    for label, reference in (references or {}).items():
        others = [(name, row) for name, row in zip(names, y, strict=True) if name != label]
        if others:
            pairs = [[(row, reference)] for _, row in others]
            found = average_difference_intervals(pairs, 1 - 0.05 / len(others))
            for (name, _), interval in zip(others, found, strict=True):
                over[name][label] = interval
    standings = tuple(
        Standing(name, mark.interval, mark.best or mark.tied, mark.to_best, over[name])
        for name, mark in marks.items()
    )
    best = next(name for name, mark in marks.items() if mark.best)
    return Choice(best, next(one.name for one in standings if one.as_good), standings)


def expected(right: ArrayLike, level: float = 0.95, resamples: int = 1000, seed: int = 1) -> Interval:
    """Return the accuracy to expect of the method that ``choose`` takes, corrected for having been chosen.

    `right` (M, n): as for ``choose``, in the same order. `resamples`: how many samples of images measure the
    excess, drawn from `seed`; with 1,000 it is off by less than 0.1 points. The estimate is that of a method
    trained on all folds but one. A model that is refitted on all images is usually a little better, which
    these outcomes cannot show. Raises ValueError for shapes that do not fit, a level outside (0, 1), or
    fewer than one resample.
    """
    y = outcomes(right)
    if resamples < 1:
        raise ValueError(f"the excess of a choice needs at least one resample, not {resamples}")
    place, excess = _excess(y, resamples, np.random.default_rng(seed))
    return corrected(mean_interval(y[place], level), excess, WIDER)


def _excess(y: NDArray[np.bool_], resamples: int, rng: np.random.Generator) -> tuple[int, float]:
    """Return the place of the chosen method, and by how much being chosen raises its accuracy on average."""
    methods, images = y.shape
    first, second = np.triu_indices(methods)
    kinds, times = patterns(y)
    pairs = (kinds[first] & kinds[second]).T.astype(np.float64)  # (K, pairs), each method with itself too

    def chosen(counts: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        both = np.empty((len(counts), methods, methods))
        both[:, first, second] = both[:, second, first] = counts @ pairs
        hits = both[:, np.arange(methods), np.arange(methods)]
        return chosen_of(hits, both, images), hits

    places, hits = chosen(times[None].astype(np.float64))
    place, whole = int(places[0]), float(hits[0, places[0]])
    # The images themselves count as a sample without an excess, so that one sample at least chooses the same.
    total, number = 0.0, 1
    for counts in samples(times, resamples, rng):
        places, hits = chosen(counts)
        same = places == place
        total += float((hits[same, place] - whole).sum()) / images
        number += int(same.sum())
    return place, total / number


def patterns(y: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return the K different columns (M, K) of outcomes (M, n), and how many images have each (K,).

    Images with the same outcomes count for the same, so samples of images are samples of these columns.
    """
    kinds, times = np.unique(y.astype(np.uint8), axis=1, return_counts=True)
    return kinds.astype(bool), times


def samples(
    times: NDArray[np.int64], resamples: int, rng: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """Yield blocks (b, K) of bootstrap samples of as many images: how many of each column a sample has."""
    block = max(1, _TOGETHER // len(times))
    for start in range(0, resamples, block):
        some = min(block, resamples - start)
        yield rng.multinomial(times.sum(), times / times.sum(), some).astype(np.float64)


def commonest(labels: ArrayLike) -> NDArray[np.bool_]:
    """Return right or wrong (n,) of a classifier that always names the commonest class of these labels (n,).

    It is the reference that a classifier has to beat to have learned anything. Of equally common classes it
    is the first. Raises ValueError without labels.
    """
    y = np.asarray(labels)
    if y.ndim != 1 or not len(y):
        raise ValueError(f"the commonest class needs a vector of labels, not shape {y.shape}")
    values, counts = np.unique(y, return_counts=True)
    return np.asarray(y == values[counts.argmax()])


def outcomes(right: ArrayLike) -> NDArray[np.bool_]:
    """Return right or wrong (M, n) as booleans; ValueError for other shapes, values, or under two images."""
    y = np.asarray(right)
    if y.ndim != 2 or not len(y) or y.shape[1] < 2:
        raise ValueError(
            f"a choice takes at least one method and two images, as (methods, images); got shape {y.shape}"
        )
    if y.dtype != bool and not np.isin(y, (0, 1)).all():
        raise ValueError("a choice takes right (1) or wrong (0) of every image; leave out images without one")
    return y.astype(bool)


def chosen_of(hits: NDArray[np.float64], both: NDArray[np.float64], images: int) -> NDArray[np.int64]:
    """Return the place of the method that ``choose`` takes, for many samples of images at once.

    `hits` (B, M): in each sample, on how many of its `images` each method is right. `both` (B, M, M): on how
    many two methods are.
    """
    methods, rows = hits.shape[1], np.arange(len(hits))
    best = hits.argmax(1)
    if methods < 2:
        return np.asarray(best)
    top = hits[rows, best][:, None]
    gap = (hits - top) / images
    square = (hits + top - 2 * both[rows, best]) / images  # mean of the squared differences, which are 0 or 1
    variance = np.maximum(square - gap**2, 0.0) / (images - 1)
    reach = critical_value(methods, images - 1) * np.sqrt(variance)
    return np.asarray((gap + reach >= 0).argmax(1))
