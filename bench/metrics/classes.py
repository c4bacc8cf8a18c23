"""Compute what concerns classes: balanced accuracy, macro-F1, counts per class, what is taken for what."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.metrics.outputs import Array, Outputs, checked

Counts = NDArray[np.int64]


class PerClass(NamedTuple):
    """Counts (K,) by class: its test images, those of them predicted right, and predictions of the class."""

    images: Counts
    right: Counts
    predicted: Counts


def per_class(top1: NDArray[Any], labels: NDArray[Any], K: int) -> PerClass:
    """Return the counts of each of K classes, from predictions (n,) and labels (n,)."""
    return PerClass(
        np.bincount(labels, minlength=K),
        np.bincount(labels[top1 == labels], minlength=K),
        np.bincount(top1, minlength=K),
    )


def balanced(outputs: Outputs) -> Array:
    """Return values (n,) whose mean is the balanced accuracy: the mean over classes of their accuracy.

    Classes without a test image do not count. The classes are fixed, so an image is compared with its class:
    with C classes and n_c images of class c the value is

        balanced accuracy + n / (C n_c) x (right - accuracy of c) x sqrt(n_c / (n_c - 1))

    The root makes the variance within a class unbiased. A class of one image shows no spread of its own. Such
    images are compared with each other.
    """
    right = outputs.right.astype(np.float64)
    images = np.bincount(outputs.labels, minlength=outputs.K)
    there = images > 0
    accuracy = np.bincount(outputs.labels, right, outputs.K)[there] / images[there]
    of = images[outputs.labels]
    mean = np.zeros(outputs.K)
    mean[there] = accuracy
    spread = (right - mean[outputs.labels]) * _unbiased(of)
    single = of == 1
    if single.sum() > 1:
        spread[single] = (right[single] - right[single].mean()) * _unbiased(single.sum())
    return np.asarray(accuracy.mean() + outputs.n / (there.sum() * of) * spread)


def macro_f1(outputs: Outputs) -> Array:
    """Return values (n,) whose mean is macro-F1: the mean over classes of 2 right / (images + predictions).

    As in scikit-learn, the classes are those that occur among labels or predictions. The value of an image is
    macro-F1 plus n times the derivative by its weight. A wrong prediction lowers F1 of two classes: of the
    true one and of the predicted one.
    """
    images, hits, predicted = per_class(outputs.top1, outputs.labels, outputs.K)
    size = (images + predicted).astype(np.float64)
    f1 = np.divide(2.0 * hits, size, out=np.zeros(outputs.K), where=size > 0)
    there = int((size > 0).sum())
    y, p = outputs.labels, outputs.top1
    move = 2.0 * outputs.right / size[y] - f1[y] / size[y] - f1[p] / size[p]
    return np.asarray(f1.sum() / there + outputs.n / there * move)


def _unbiased(number: Any) -> Array:
    """Return sqrt(m / (m - 1)) for groups of m images, 1 for single ones."""
    m = np.asarray(number, dtype=np.float64)
    return np.sqrt(m / np.maximum(m - 1, 1))


class Confusion(NamedTuple):
    """A class that is taken for another one.

    ``times``: how many predictions did so, over all seeds. ``images``: how many different images it happened
    to. ``share``: ``times`` over all predictions for images of the true class.
    """

    label: int
    taken_for: int
    times: int
    images: int
    share: float


def confusions(outputs: Sequence[Outputs]) -> list[Confusion]:
    """Return what is taken for what, over the seeds of one method, the most frequent first.

    Pairs are ordered by ``times``, then by class. Raises ValueError if the seeds' test images differ.
    """
    seeds = checked(outputs)
    labels, K = seeds[0].labels.astype(np.int64), seeds[0].K
    codes = np.stack([labels * K + one.top1 for one in seeds])  # (S, n)
    wrong = np.stack([~one.right for one in seeds])
    pairs, times = np.unique(codes[wrong], return_counts=True)
    # An image counts once in a pair, however many seeds took it so.
    once = {(int(code), int(i)) for code, i in zip(codes[wrong], np.nonzero(wrong)[1], strict=True)}
    found, images = np.unique([code for code, _ in once], return_counts=True)
    of = np.bincount(labels, minlength=K) * len(seeds)
    assert np.array_equal(found, pairs)
    rows = [
        Confusion(int(c) // K, int(c) % K, int(t), int(i), float(t / of[int(c) // K]))
        for c, t, i in zip(pairs, times, images, strict=True)
    ]
    return sorted(rows, key=lambda row: (-row.times, row.label, row.taken_for))
