"""Score replicas on validation images by accuracy and loss, and search inference-time values.

Legend: G lanes or search points, R replicas, B images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.interface import Consts, Features, Method, Params, Values, scored_values
from bench.recipe import Recipe
from bench.train import hits, loop, pure, slices
from bench.train.keep import Labelled, Scorer

# A slice of the images -> how many of them are right and the sum of their losses, for every replica.
OfSlice = Callable[[slice], tuple[Tensor, Tensor]]


def checked_at(method: Method, recipe: Recipe, settings: Values) -> dict[str, Any]:
    """Return the values that ``logits`` gets at a check, except those of the grid."""
    return {**scored_values(method, settings), **recipe.check}


def scorer(
    method: Method,
    recipe: Recipe,
    consts: Consts,
    settings: Values,
    val: Labelled,
    most: int | slices.Limit = slices.PROCESSOR,
) -> Scorer:
    """Return a scorer of stacked replicas: validation accuracy and negative loss, (R,) each.

    It scores at the recipe's check values. ``most``: bytes of features in a slice, times replicas. This is a
    number or a limit. If several scorers share a limit and memory runs out, it falls for all of them.
    """
    base = checked_at(method, recipe, settings)
    limit = slices.Limit(most) if isinstance(most, int) else most

    def score(params: Params, values: Sequence[Values]) -> tuple[Tensor, Tensor]:
        frozen = {name: p.detach() for name, p in params.items()}
        dtype = next((p.dtype for p in frozen.values()), torch.float32)
        axes = loop.axes_of(values, recipe, val.y.device, dtype)

        def of_slice(at: slice) -> tuple[Tensor, Tensor]:
            features = {tap: x[at] for tap, x in val.features.items()}

            def logits(p: Params, a: Values) -> Tensor:
                return method.logits(p, consts, features, {**base, **a})

            with pure.call(method, "logits", params=frozen, constants=consts, features=features):
                logits_RBK = loop.map_replicas(logits, method.fuse, frozen, axes)
            return counted(logits_RBK, val.y[at])

        return summed(len(val.y), image_bytes(val.features) * len(values), limit, of_slice)

    return score


def summed(rows: int, each: int, limit: slices.Limit, of_slice: OfSlice) -> tuple[Tensor, Tensor]:
    """Return accuracy and negative mean loss over all images, from the counts on slices (``slices.over``)."""
    with torch.no_grad():
        parts = slices.over(rows, each, limit, of_slice)
        hits_R, loss_R = next(parts)
        for more in parts:  # one after the other, because sums of stacked parts may round differently
            hits_R, loss_R = hits_R + more[0], loss_R + more[1]
    return hits_R / rows, -loss_R / rows


def counted(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many images are right, and the sum of their losses, float64 (..., R).

    ``logits`` (..., R, B, K) of images whose classes are ``y`` (..., B).
    """
    logits, y = logits.double(), y[..., None, :]
    picked = logits.gather(-1, y.expand(logits.shape[:-1])[..., None])[..., 0]
    return (logits.argmax(-1) == y).sum(-1).double(), (logits.logsumexp(-1) - picked).sum(-1)


def image_bytes(features: Features) -> int:
    """Return the bytes of one image's features in single precision."""
    return slices.row_bytes([x.shape[1:] for x in features.values()])


def search(
    method: Method,
    consts: Consts,
    params: Params,
    values: Values,
    grid: Sequence[Values],
    val: Labelled,
    most: int = slices.PROCESSOR,
) -> tuple[dict[str, Any], float]:
    """Return the search point with the highest validation accuracy, and that accuracy.

    Among equal points the first is chosen. ``most``: bytes of features in a slice.
    """

    def of_slice(at: slice) -> Tensor:
        hits_G = torch.zeros(len(grid), dtype=torch.long, device=val.y.device)
        features = {tap: x[at] for tap, x in val.features.items()}
        with pure.call(method, "sweep", params=params, constants=consts, features=features):
            for positions, piece in method.sweep(params, consts, features, dict(values), grid):
                hits_G[list(positions)] += hits.count(piece, val.y[at])
        return hits_G

    with torch.no_grad():
        parts = list(slices.over(len(val.y), image_bytes(val.features), slices.Limit(most), of_slice))
    hits_G = torch.stack(parts).sum(0).cpu().numpy()
    best = int(hits_G.argmax())  # numpy's argmax is the first of equals; torch's need not be
    return dict(grid[best]), int(hits_G[best]) / len(val.y)
