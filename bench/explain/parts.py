"""Measure how much of an explanation falls on each part: attention maps and Shapley values against masks.

Legend: P parts, V models, M coalitions, S side in px, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from bench.clip.backbone import Backbone
from bench.errors import BenchError
from bench.explain import attention
from bench.explain.picture import BACKGROUND, Picture
from bench.explain.shapley import PERMUTATIONS, Shapley, composed, shapley
from bench.explain.subject import Model, dense

VALUES = {"margin": "its logit less the largest other logit", "probability": "its softmax probability"}
FILLS = {"mean": "the mean colour of the image", BACKGROUND: "the mean colour of the background"}


def enlarge(map_SS: np.ndarray, side: int) -> np.ndarray:
    """Enlarge a grid map to ``side`` x ``side`` px, spreading each position's value over its pixels."""
    cell = np.arange(side) * len(map_SS) // side
    pixels = np.bincount(cell, minlength=len(map_SS)).astype(np.float64)
    return (map_SS / np.outer(pixels, pixels))[cell][:, cell]


def map_shares(map_SS: np.ndarray, masks: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the share (P,) of a non-negative grid map that falls on each mask.

    The shares sum to one if the masks cover the image.
    """
    weight = enlarge(map_SS.astype(np.float64), len(next(iter(masks.values()))))
    shares_P: np.ndarray = np.array([weight[mask].sum() for mask in masks.values()]) / weight.sum()
    return shares_P


def attention_map(tower: Backbone, model: Model, picture: Picture) -> np.ndarray:
    """Return the attention map (S, S) of the pooling head on the grid, which sums to one."""
    with torch.no_grad():
        weights_BHT = attention.weights(tower, model.head, dense(tower, picture.pixels[None]))
        return attention.maps(weights_BHT)[0].double().cpu().numpy()


def check(value: str, fill: str) -> None:
    """Raise BenchError for words that are not in ``VALUES`` and ``FILLS``."""
    if value not in VALUES:
        raise BenchError(f"--value {value}: choose {' or '.join(VALUES)}")
    if fill not in FILLS:
        raise BenchError(f"--fill {fill}: choose {' or '.join(FILLS)}")


def class_value(logits_MK: torch.Tensor, label: int, kind: str) -> np.ndarray:
    """Return the value (M,) of a class, as ``VALUES`` describes it.

    Raises BenchError for another kind, or for a margin with one class.
    """
    if kind not in VALUES:
        raise BenchError(f"--value {kind}: choose {' or '.join(VALUES)}")
    if kind == "probability":
        return logits_MK.double().softmax(-1)[:, label].cpu().numpy()
    if logits_MK.shape[1] < 2:
        raise BenchError("a margin needs two classes or more: use --value probability")
    others = logits_MK.double().clone()
    others[:, label] = -torch.inf
    return (logits_MK[:, label].double() - others.max(-1).values).cpu().numpy()


def colour(picture: Picture, fill: str) -> np.ndarray:
    """Return the colour (3,) that fills absent parts.

    Raises BenchError for an unknown word, or for a picture without background.
    """
    if fill not in FILLS:
        raise BenchError(f"--fill {fill}: choose {' or '.join(FILLS)}")
    painted_over = picture.pixels.reshape(-1, 3)
    if fill != "mean":
        mask = picture.masks.get(BACKGROUND)
        if mask is None or not mask.any():
            raise BenchError(f"{picture.name} has no part named {BACKGROUND}: use --fill mean")
        painted_over = picture.pixels[mask]
    mean: np.ndarray = painted_over.mean(0)
    return mean


def part_values(
    tower: Backbone,
    models: Sequence[Model],
    picture: Picture,
    label: int,
    value: str = "margin",
    fill: str = "mean",
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Shapley:
    """Return Shapley values (P, V) of the picture's parts for a class under each model, on the same images.

    Raises BenchError if the parts of the picture are not known.
    """
    if not picture.masks:
        raise BenchError(f"the parts of {picture.name} are not known: give --masks FILE or --grid N")
    paint = colour(picture, fill)

    def score(there_MP: np.ndarray) -> np.ndarray:
        values = []
        for start in range(0, len(there_MP), 256):
            x_BTD = dense(
                tower, composed(picture.pixels, picture.masks, there_MP[start : start + 256], paint)
            )
            with torch.no_grad():
                values.append(np.stack([class_value(m.logits(x_BTD), label, value) for m in models], axis=1))
        return np.concatenate(values)

    return shapley(score, len(picture.masks), permutations, seed)
