"""Compute the risk-coverage curve: how often predictions are wrong if only confident ones are given.

Images are ordered by confidence, the surest first. Coverage k / n gives an answer for the first k images, and
its selective risk is the share of wrong ones among them. The area (AURC, Geifman et al. 2019) is the mean of
the n risks. It is low if a method is right often, and if it is less sure where it errs.

Images of equal confidence have no order. They share their errors evenly, so the curve is the mean over all
their orders. Example: if all confidences are equal, every risk is the error rate.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.metrics.outputs import Array, Outputs


class _Ordered(NamedTuple):
    """Images by confidence: their order, the group of equal confidences of each place, and the risks (n,)."""

    order: NDArray[np.int64]
    group: NDArray[np.int64]
    risk: Array


def _ordered(outputs: Outputs) -> _Ordered:
    confidence = outputs.confidence()
    order = np.argsort(-confidence, kind="stable")
    at = confidence[order]
    group = np.concatenate([[0], np.cumsum(at[1:] != at[:-1])])
    wrong = _shared(~outputs.right[order], group)
    return _Ordered(order, group, np.cumsum(wrong) / np.arange(1, len(at) + 1))


def _shared(values: NDArray[Any], group: NDArray[np.int64]) -> Array:
    """Return values (n,) with the mean of its group in place of each."""
    return np.asarray((np.bincount(group, values) / np.bincount(group))[group])


def risk_coverage(outputs: Outputs) -> tuple[Array, Array]:
    """Return coverages (n,), 1 / n to 1, and the selective risk at each.

    Raises ValueError if the evaluation kept no probabilities.
    """
    risk = _ordered(outputs).risk
    return np.arange(1, len(risk) + 1) / len(risk), risk


def aurc(outputs: Outputs) -> Array:
    """Return values (n,) whose mean is the area under the risk-coverage curve, from 0 to 1.

    The value of the image in place i is the risk there, plus the sum over places k >= i of (wrong - risk_k) /
    k: what it adds to the risk of every coverage that includes it. It is the area plus n times its derivative
    by the weight of the image. Images of equal confidence take the mean over their places.
    """
    order, group, risk = _ordered(outputs)
    place = np.arange(1, len(risk) + 1)
    after = np.cumsum((1 / place)[::-1])[::-1]  # sum over k >= i of 1 / k
    risk_after = np.cumsum((risk / place)[::-1])[::-1]
    wrong = ~outputs.right[order]
    values = np.empty(len(risk))
    values[order] = _shared(risk - risk_after, group) + wrong * _shared(after, group)
    return values
