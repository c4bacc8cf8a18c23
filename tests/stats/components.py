"""Estimate from records how much of the outcomes' variance is due to classes, images and draws.

``python -m tests.stats.components results/pocket`` prints the table that ``tests/stats/simulated.py`` holds
as constants, so that tests need no records.

The model is that of ``tests/stats/simulated.py``: a method classifies an image correctly if a latent normal
number of variance 1 exceeds 0. Two outcomes are both right with probability Phi2(mu, mu'; r). The latent
correlation r is the sum of the terms that the two outcomes share:

    one image, two seeds                    class + image
    two images of a class, two seeds        class
    two images of two classes, one seed     draw
    two images of a class, one seed         class + draw + class x draw
    two images of two classes, two seeds    nothing

Two outcomes of two methods share the part of a term that is equal for all methods ("shared"). Two outcomes of
one method share that part and the method's own part ("own").

For each kind of pair, the estimator takes the share of pairs in which both are right. It subtracts the share
of the last kind. It then solves Phi2(mu, mu'; r) - Phi(mu) Phi(mu') = difference for r. Every share is a mean
over all pairs of that kind, so few seeds do not bias the differences. Differences of two r give the terms.
Single estimates are noisy with three seeds, so that negative ones occur, and the quantiles over pairs of
methods hold this noise too. A term of one method is averaged over the two methods of a pair.

Legend: M methods, S seeds, n images, C classes.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bench.records import store
from bench.report.frame import load_results

Array = NDArray[np.float64]
TERMS = (
    "class_shared",
    "class_own",
    "image_shared",
    "image_own",
    "draw_shared",
    "draw_own",
    "class_draw_shared",
    "class_draw_own",
)
_MOST = 0.98  # largest latent correlation that is solved for
_X, _WEIGHTS = np.polynomial.legendre.leggauss(24)


def gain(mu: Array, other: Array, r: Array) -> Array:
    """Return Phi2(mu, other; r) - Phi(mu) Phi(other), the integral of the normal density over correlations.

    The substitution correlation = sin(angle) keeps the integrand smooth up to correlations near 1.
    """
    end = np.arcsin(r)[..., None]
    angle = end * (1 + _X) / 2
    h, k = mu[..., None], other[..., None]
    density = np.exp(-(h**2 + k**2 - 2 * h * k * np.sin(angle)) / (2 * np.cos(angle) ** 2)) / (2 * np.pi)
    return np.asarray((density * _WEIGHTS).sum(-1) * end[..., 0] / 2)


def correlation(mu: Array, other: Array, difference: Array) -> Array:
    """Return the latent correlation at which ``gain`` is the difference, between -0.98 and 0.98."""
    low, high = np.full_like(difference, -_MOST), np.full_like(difference, _MOST)
    for _ in range(30):
        middle = (low + high) / 2
        below = gain(mu, other, middle) < difference
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def terms(right_MSn: NDArray[np.bool_], labels_n: NDArray[np.integer]) -> dict[str, Array]:
    """Estimate the terms of each pair of methods, each an array with a place for each pair."""
    y = right_MSn.astype(np.float64)
    seeds, n = y.shape[1:]
    _, of_class_n, count_C = np.unique(labels_n, return_inverse=True, return_counts=True)
    by_class_MSC = y @ np.eye(len(count_C))[of_class_n]
    # Sums of products of outcomes, for each two methods (M, M).
    image_seed = np.einsum("asn,bsn->ab", y, y, optimize=True)
    image = np.einsum("an,bn->ab", y.sum(1), y.sum(1), optimize=True)
    class_seed = np.einsum("asc,bsc->ab", by_class_MSC, by_class_MSC, optimize=True)
    in_class = np.einsum("ac,bc->ab", by_class_MSC.sum(1), by_class_MSC.sum(1), optimize=True)
    seed = np.einsum("as,bs->ab", y.sum(2), y.sum(2), optimize=True)
    whole = np.outer(y.sum((1, 2)), y.sum((1, 2)))
    two_seeds, in_one_class = seeds * (seeds - 1), float((count_C**2).sum())
    image_of_2_seeds = (image - image_seed) / (two_seeds * n)
    class_of_1_seed = (class_seed - image_seed) / (seeds * (in_one_class - n))
    class_of_2_seeds = (in_class - class_seed - image + image_seed) / (two_seeds * (in_one_class - n))
    classes_of_1_seed = (seed - class_seed) / (seeds * (n**2 - in_one_class))
    nothing = (whole - seed - in_class + class_seed) / (two_seeds * (n**2 - in_one_class))

    mu_M = special.ndtri(y.mean((1, 2)))
    mu, other = np.broadcast_arrays(mu_M[:, None], mu_M[None, :])
    r_class = correlation(mu, other, class_of_2_seeds - nothing)
    r_image = correlation(mu, other, image_of_2_seeds - nothing) - r_class
    r_draw = correlation(mu, other, classes_of_1_seed - nothing)
    r_class_draw = correlation(mu, other, class_of_1_seed - nothing) - r_class - r_draw
    i, j = np.triu_indices(len(y), 1)
    found = {}
    for name, r in (("class", r_class), ("image", r_image), ("draw", r_draw), ("class_draw", r_class_draw)):
        found[f"{name}_shared"] = r[i, j]
        found[f"{name}_own"] = (np.diag(r)[i] + np.diag(r)[j]) / 2 - r[i, j]
    return {name: found[name] for name in TERMS}


def recorded(results: Path) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.integer]]]:
    """Yield the outcomes (M, S, n) and labels (n,) of each dataset and number of shots, on one backbone."""
    frame = load_results(results)
    plain = frame[(frame.status == "ok") & (frame.target == frame.dataset) & (frame.variant == "")]
    plain = plain[(plain.shots > 0) & (plain.backbone == "pocket-rn") & (plain.prompts == "hand")]
    for _, block in plain.groupby(["dataset", "shots"]):
        most = block.groupby("method").size().max()
        outcomes = []
        for _, rows in block.groupby("method"):
            if len(rows) == most:
                read = [store.predictions(Path(path)) for path in rows.sort_values("seed").path]
                outcomes.append([one["top1"] == one["labels"] for one in read])
        yield np.array(outcomes), read[0]["labels"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    found = [terms(right, labels) for right, labels in recorded(parser.parse_args().results)]
    print(f"{sum(len(one['class_own']) for one in found)} pairs of methods\n")
    print("| share of the latent variance, % | 10 % quantile | median | 90 % quantile |")
    print("|---|--:|--:|--:|")
    for name in TERMS:
        values = 100 * np.quantile(np.concatenate([one[name] for one in found]), (0.1, 0.5, 0.9))
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |")


if __name__ == "__main__":
    main()
