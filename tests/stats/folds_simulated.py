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
    "logistic": _of(LogisticRegression(C=0.1, max_iter=40, tol=1e-3)),
}


@dataclass(frozen=True)
class World:
    """What the images are like, and which methods are tried, from the simplest on.

    `spread`: the standard deviation of the class centres; the noise has 1. `uneven`: the log standard
    deviation of the scale of the noise over its axes; the more uneven, the more a covariance helps. `texts`:
    the standard deviation of the error of the prototypes. `rare`: the share of the rarest class in that of
    the commonest one.
    """

    images: int
    methods: tuple[str, ...] = tuple(METHODS)
    classes: int = 5
    size: int = 16
    spread: float = 0.5
    uneven: float = 0.0
    texts: float = 0.4
    rare: float = 1.0


WORLDS = {
    "8 alike, 100 images": World(100),
    "8 alike, 300 images": World(300, spread=0.6, texts=0.2, rare=0.4),
    "7 close, 200 images": World(200, tuple(METHODS)[1:], uneven=0.4, classes=4),
    "8 unlike, 100 images": World(100, uneven=0.8, texts=0.5, spread=0.4),
    "8 unlike, 600 images": World(600, uneven=0.8, texts=0.5, classes=10, size=24, spread=0.3),
    "3 unlike, 300 images": World(300, ("text", "centroid", "lda"), uneven=0.6, rare=0.4),
    "8 accurate, 300 images": World(300, spread=1.0, texts=0.5, uneven=0.3),
    "5 accurate, 600 images": World(
        600, ("centroid", "lda shrunk", "ridge 100", "ridge 1", "logistic"), spread=0.9
    ),
}


@dataclass(frozen=True)
class Repetition:
    """The outcomes of one repetition, and what its models do on fresh images.

    `right` and `confidence` (M, n): of every image, by the model that did not see it.
    """

    right: Array
    confidence: Array
    heads: Sequence[Sequence[Head]]  # by method and fold
    fresh: Callable[[int], tuple[Array, Array]]  # of a method: right and confidence (F, T)

    def truth(self, method: int) -> float:
        """The accuracy of a method, trained on four fifths, on fresh images."""
        return float(self.fresh(method)[0].mean())


def _scored(head: Head, features: Array, labels: Array) -> tuple[Array, Array]:
    """Right or wrong, and the probability of the named class."""
    logits = features @ head[0] + head[1]
    logits -= logits.max(1, keepdims=True)
    return logits.argmax(1) == labels, 1 / np.exp(logits).sum(1)


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

    def fresh(method: int) -> tuple[Array, Array]:
        again = np.random.default_rng(seed)
        y = again.choice(k, FRESH, p=fresh_shares)
        x = (centres[y] + scale * again.standard_normal((FRESH, d))).astype(np.float32)
        found = [_scored((w.astype(np.float32), b.astype(np.float32)), x, y) for w, b in heads[method]]
        return np.stack([one[0] for one in found]), np.stack([one[1] for one in found])

    return Repetition(right, confidence, heads, fresh)
