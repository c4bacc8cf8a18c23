"""Simulate the choice among methods on five folds, with true accuracies. It imports nothing of the program.

A repetition draws n images of K classes as Gaussian features around class centres, divides them into five
stratified folds, and trains every method on four of them at a time (scikit-learn). So the outcomes of a
method are as dependent as real ones: two of its five models share three quarters of their images, and every
image tests one model and trains the four others. All methods are linear, which makes
their accuracy on 20,000 fresh images cheap.

The truth of a method is the mean accuracy of its five models on fresh images: that of the method trained on
four fifths of *these* images.

Legend: M methods, n images, K classes, d numbers per feature, F folds, T fresh images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier

Array = NDArray[Any]
Head = tuple[Array, Array]  # weights (d, K) and biases (K,)
Fit = Callable[[Array, Array, Array], Head]  # from features, labels and the prototypes that texts would give
FOLDS, FRESH = 5, 20_000


def _text(_: Array, labels: Array, prototypes: Array) -> Head:
    """Zero-shot: it learns nothing."""
    return prototypes.T, -0.5 * (prototypes**2).sum(1)


def _centroid(features: Array, labels: Array, prototypes: Array) -> Head:
    centres = np.stack([features[labels == c].mean(0) for c in range(len(prototypes))])
    return centres.T, -0.5 * (centres**2).sum(1)


def _mixed(features: Array, labels: Array, prototypes: Array) -> Head:
    """Centroids, drawn halfway to the prototypes."""
    centres = np.stack([features[labels == c].mean(0) for c in range(len(prototypes))])
    return _text(features, labels, (centres + prototypes) / 2)


def _of(model: Any, scale: float = 1.0) -> Fit:
    """A linear model of scikit-learn; `scale` makes logits of its scores."""

    def fit(features: Array, labels: Array, _: Array) -> Head:
        model.fit(features, labels)
        return scale * model.coef_.T, scale * model.intercept_

    return fit


METHODS: dict[str, Fit] = {  # from simple to complex
    "text": _text,
    "centroid": _centroid,
    "mixed": _mixed,
    "lda shrunk": _of(LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.5)),
    "lda": _of(LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.05)),
    "ridge 100": _of(RidgeClassifier(alpha=100.0), 6.0),
    "ridge 1": _of(RidgeClassifier(alpha=1.0), 6.0),
    "logistic": _of(LogisticRegression(C=0.1, max_iter=500, tol=1e-3)),
}


@dataclass(frozen=True)
class World:
    """What the images are like, and which methods are tried, from the simplest on.

    `spread`: the standard deviation of the class centres; the noise has 1. `uneven`: the log standard
    deviation of the scale of the noise over its axes; the more uneven, the more a covariance helps. `texts`:
    the standard deviation of the error of the prototypes. `rare`: the share of the rarest class in that of
    the commonest one. `mislabelled`: the share of images, fresh ones too, that carry the label of the next
    class. Confidence cannot tell them, so the error is about the same at every threshold.
    """

    images: int
    methods: tuple[str, ...] = tuple(METHODS)
    classes: int = 5
    size: int = 16
    spread: float = 0.5
    uneven: float = 0.0
    texts: float = 0.4
    rare: float = 1.0
    mislabelled: float = 0.0


WORLDS = {
    "8 alike, 100 images": World(100),
    "8 alike, 300 images": World(300, spread=0.6, texts=0.2, rare=0.4),
    "7 close, 200 images": World(200, tuple(METHODS)[1:], uneven=0.4, classes=4),
    "8 unlike, 100 images": World(100, uneven=0.8, texts=0.5, spread=0.4),
    "5 unlike, 600 images": World(
        600,
        ("text", "centroid", "lda shrunk", "lda", "ridge 1"),
        uneven=0.8,
        texts=0.5,
        classes=10,
        size=24,
        spread=0.3,
    ),
    "3 unlike, 300 images": World(300, ("text", "centroid", "lda"), uneven=0.6, rare=0.4),
    "8 accurate, 300 images": World(300, spread=1.0, texts=0.5, uneven=0.3),
    "4 mislabelled, 600 images": World(
        600, ("centroid", "lda shrunk", "lda", "logistic"), spread=1.6, mislabelled=0.052
    ),
}


@dataclass(frozen=True)
class Repetition:
    """The outcomes of one repetition, and what its models do on fresh images.

    `right` and `confidence` (M, n): of every image, by the model that did not see it. `fresh` returns those
    of a method's five models on fresh images (F, T), `refitted` those of the method trained on all images
    (T,).
    """

    right: Array
    confidence: Array
    fresh: Callable[[int], tuple[Array, Array]]
    refitted: Callable[[int], tuple[Array, Array]]

    def truth(self, method: int) -> float:
        """The accuracy of a method, trained on four fifths, on fresh images."""
        return float(self.fresh(method)[0].mean())


def _scored(head: Head, features: Array, labels: Array) -> tuple[Array, Array]:
    """Right or wrong, and the probability of the named class."""
    logits = features @ head[0] + head[1]
    logits -= logits.max(1, keepdims=True)
    return logits.argmax(1) == labels, 1 / np.exp(logits).sum(1)


def _mislabelled(labels: Array, world: World, rng: np.random.Generator) -> Array:
    """Labels of which a share names the next class."""
    moved = rng.random(len(labels)) < world.mislabelled
    return np.where(moved, (labels + 1) % world.classes, labels)


def _stratified(labels: Array, rng: np.random.Generator) -> Array:
    """The fold (0 to 4) that tests each image; the images of a class are dealt out."""
    fold = np.empty(len(labels), dtype=np.int64)
    for c in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == c))
        fold[places] = (np.arange(len(places)) + rng.integers(FOLDS)) % FOLDS
    return fold


def repetition(world: World, rng: np.random.Generator) -> Repetition:
    """Draw classes, images and folds, and train every method on every four folds."""
    k, d, n = world.classes, world.size, world.images
    centres = world.spread * rng.standard_normal((k, d))
    scale = np.exp(world.uneven * rng.standard_normal(d))
    scale /= np.sqrt((scale**2).mean())
    prototypes = centres + world.texts * rng.standard_normal((k, d))
    shares = np.linspace(1.0, world.rare, k) / np.linspace(1.0, world.rare, k).sum()
    # Five images of every class, so that every fold trains on all classes.
    labels = np.concatenate([np.repeat(np.arange(k), FOLDS), rng.choice(k, n - FOLDS * k, p=shares)])
    fresh_shares = (FOLDS + (n - FOLDS * k) * shares) / n
    features = centres[labels] + scale * rng.standard_normal((n, d))
    labels = _mislabelled(labels, world, rng)
    fold = _stratified(labels, rng)
    right, confidence = np.empty((len(world.methods), n), dtype=bool), np.empty((len(world.methods), n))
    heads: list[list[Head]] = []
    for m, name in enumerate(world.methods):
        heads.append([])
        for f in range(FOLDS):
            test = fold == f
            heads[-1].append(METHODS[name](features[~test], labels[~test], prototypes))
            right[m, test], confidence[m, test] = _scored(heads[-1][-1], features[test], labels[test])
    seed = int(rng.integers(2**32))

    def scored(some: Sequence[Head]) -> tuple[Array, Array]:
        again = np.random.default_rng(seed)
        y = again.choice(k, FRESH, p=fresh_shares)
        x = (centres[y] + scale * again.standard_normal((FRESH, d))).astype(np.float32)
        y = _mislabelled(y, world, again)
        found = [_scored((w.astype(np.float32), b.astype(np.float32)), x, y) for w, b in some]
        return np.stack([one[0] for one in found]), np.stack([one[1] for one in found])

    def refitted(method: int) -> tuple[Array, Array]:
        hits, sure = scored([METHODS[world.methods[method]](features, labels, prototypes)])
        return hits[0], sure[0]

    return Repetition(right, confidence, lambda method: scored(heads[method]), refitted)


def curve(
    world: World,
    method: str,
    shares: Sequence[float],
    factor: float,
    rng: np.random.Generator,
    truths: int = 4,
) -> tuple[Array, Array, float, float]:
    """A learning curve of one method, and the truth beyond it.

    Returns the numbers of training images (P,), the outcomes of all images (P, n) by the models of five folds
    that were trained on these shares of the other folds, and the true accuracies at the largest number and at
    `factor` times it: means over `truths` further draws of training images.
    """
    k, d, n = world.classes, world.size, world.images
    centres = world.spread * rng.standard_normal((k, d))
    scale = np.exp(world.uneven * rng.standard_normal(d))
    prototypes = centres + world.texts * rng.standard_normal((k, d))

    def draw(number: int) -> tuple[Array, Array]:
        y = np.arange(number) % k
        return (centres[y] + scale * rng.standard_normal((number, d))), y

    features, labels = draw(n)
    fold = _stratified(labels, rng)
    sizes = np.array([round(share * n * (1 - 1 / FOLDS)) for share in shares])
    right = np.empty((len(shares), n), dtype=bool)
    for f in range(FOLDS):
        others = np.flatnonzero(fold != f)  # the classes take turns, so that few images have all of them too
        for p, size in enumerate(sizes):
            some = others[:size]
            head = METHODS[method](features[some], labels[some], prototypes)
            right[p, fold == f] = _scored(head, features[fold == f], labels[fold == f])[0]
    x, y = draw(FRESH // k * k)
    true = [
        float(
            np.mean(
                [
                    _scored(METHODS[method](*draw(int(size)), prototypes), x, y)[0].mean()
                    for _ in range(truths)
                ]
            )
        )
        for size in (sizes.max(), factor * sizes.max())
    ]
    return sizes, right, true[0], true[1]
