"""Compute metrics that are means over images: accuracy, negative log-likelihood, Brier score.

Every function returns one value per image (n,); the metric is their mean.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.metrics.outputs import Array, Outputs


def top1(outputs: Outputs) -> NDArray[Any]:
    """Return whether the prediction is right."""
    return outputs.right


def top5(outputs: Outputs) -> NDArray[Any]:
    """Return whether the true class is among the best five.

    With five classes or fewer it always is. Records of before have the best five and no rank.
    """
    if outputs.rank is not None:
        return np.asarray(outputs.rank < 5)
    return np.asarray((outputs.kept("classes")[:, :5] == outputs.labels[:, None]).any(1))


def nll(outputs: Outputs, after: bool = False) -> Array:
    """Return the negative log-likelihood in nats: -log p(true class).

    After temperature scaling it is log sum_k p_k^(1/T) - log p(true class) / T. It is infinite where the true
    class has the probability 0.
    """
    true = outputs.kept("true_logp")
    if not after:
        return np.maximum(-true, 0.0)
    return np.maximum(outputs.kept("lse_t") - true / outputs.kept_temperature(), 0.0)


def brier(outputs: Outputs, after: bool = False) -> Array:
    """Return the Brier score, from 0 to 2: sum over the K classes of (p_k - [k is the true class])^2.

    This is the form of Brier (1950) for several classes, 1 - 2 p(true class) + sum_k p_k^2. For two classes
    it is twice the score that is usual for yes-or-no questions.
    """
    squares = outputs.kept("squares_t" if after else "squares")
    return np.maximum(1 - 2 * np.exp(-nll(outputs, after)) + squares, 0.0)
