"""Compute Shapley values of image parts: what each adds to a score, averaged over all orders.

This module needs NumPy alone.

Legend: P parts, M coalitions, V values read from each coalition (models, classes), S side of an image in px.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

EXACT = 10  # up to this many parts, all 2^P coalitions are scored
PERMUTATIONS = 200

Value = Callable[[np.ndarray], np.ndarray]  # boolean (M, P): which parts are there -> (M, V)


@dataclass(frozen=True)
class Shapley:
    """Shapley values of parts.

    ``phi``: the values (P, V). ``se``: their standard errors (P, V), zero if they are exact. ``all`` and
    ``none``: the scores (V,) with all parts and with none. ``orders``: the number of sampled permutations,
    None if the values are exact.
    """

    phi: np.ndarray
    se: np.ndarray
    all: np.ndarray
    none: np.ndarray
    orders: int | None = None


def shapley(
    value: Value, parts: int, permutations: int = PERMUTATIONS, seed: int = 0, limit: int = EXACT
) -> Shapley:
    """Return exact values for at most ``limit`` parts, and else values from ``permutations`` random orders.

    Either way the values sum to all - none.
    """
    if parts <= limit:
        return exact(value, parts)
    return sampled(value, parts, permutations, np.random.default_rng(seed))


def exact(value: Value, parts: int) -> Shapley:
    """Return the values from the scores of all 2^P coalitions."""
    codes = np.arange(1 << parts)
    there = (codes[:, None] >> np.arange(parts)) & 1 == 1
    v_MV = np.asarray(value(there), np.float64)
    sizes = there.sum(1)
    # The share of the P! orders that put exactly this coalition before a given part.
    share = np.array([1 / (parts * math.comb(parts - 1, k)) for k in range(parts)])
    phi = np.empty((parts, v_MV.shape[1]))
    for i in range(parts):
        without = codes[~there[:, i]]
        phi[i] = share[sizes[without]] @ (v_MV[without | 1 << i] - v_MV[without])
    return Shapley(phi, np.zeros_like(phi), v_MV[-1], v_MV[0])


def sampled(value: Value, parts: int, permutations: int, generator: np.random.Generator) -> Shapley:
    """Return means over random orders; ``se`` is their standard error.

    Every coalition that occurs is scored once. Raises ValueError for fewer than 2 permutations.
    """
    if permutations < 2:
        raise ValueError(f"{permutations} permutations: a standard error needs at least 2")
    orders = np.stack([generator.permutation(parts) for _ in range(permutations)])
    ranks = np.argsort(orders, axis=1)
    # The first k parts of each order, (orders, P + 1, P).
    there = ranks[:, None, :] < np.arange(parts + 1)[None, :, None]
    distinct, where = np.unique(there.reshape(-1, parts), axis=0, return_inverse=True)
    v = np.asarray(value(distinct), np.float64)[where.reshape(permutations, parts + 1)]
    # What each part adds, (orders, P, V), with the parts back in their own order.
    gains = np.take_along_axis(np.diff(v, axis=1), ranks[:, :, None], axis=1)
    phi, se = gains.mean(0), gains.std(0, ddof=1) / math.sqrt(permutations)
    return Shapley(phi, se, v[0, -1], v[0, 0], permutations)


def composed(
    pixels: np.ndarray, masks: Mapping[str, np.ndarray], there: np.ndarray, fill: np.ndarray
) -> np.ndarray:
    """Return the image (S, S, 3) per coalition (M, P), as uint8 (M, S, S, 3).

    Absent parts are painted in the colour ``fill``.
    """
    owner = np.argmax(np.stack(list(masks.values())), axis=0)
    seen = there[:, owner]  # (M, S, S)
    return np.where(seen[..., None], pixels, np.rint(fill).astype(np.uint8)).astype(np.uint8)


def absolute_shares(phi: np.ndarray) -> np.ndarray:
    """Return |phi| divided by its sum over the parts (P, V), or zeros if no part counts."""
    size = np.abs(phi)
    total = size.sum(0)
    shares: np.ndarray = np.divide(size, total, out=np.zeros_like(size), where=total > 0)
    return shares
