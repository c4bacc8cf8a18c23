"""Outputs made of logits, as an evaluation keeps them, for the tests of the metrics."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp, softmax

from bench.metrics import Outputs

Array = NDArray[Any]


def outputs(logits: Array, labels: Array, temperature: float | None = 1.0) -> Outputs:
    """What an evaluation keeps of logits (n, K): everything in the types of the records."""
    logp = log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    n, K = logp.shape
    order = np.argsort(-logp, axis=1, kind="stable")
    classes = np.full((n, 5), -1, np.int16)
    best = np.full((n, 5), -np.inf, np.float32)
    classes[:, : min(K, 5)] = order[:, :5]
    best[:, : min(K, 5)] = np.take_along_axis(logp, order[:, :5], 1)
    at = logp / (temperature or 1.0)
    return Outputs(
        labels=np.asarray(labels, np.uint16),
        top1=order[:, 0].astype(np.uint16),
        K=K,
        classes=classes,
        logp=best,
        rank=(order == labels[:, None]).argmax(1).astype(np.uint16),
        true_logp=logp[np.arange(n), labels].astype(np.float32),
        squares=np.exp(2 * logp).sum(1).astype(np.float32),
        lse_t=logsumexp(at, axis=1).astype(np.float32),
        squares_t=(softmax(at, axis=1) ** 2).sum(1).astype(np.float32),
        temperature=temperature,
    )


def drawn(
    seed: int = 0, n: int = 300, K: int = 12, temperature: float | None = 1.6
) -> tuple[Outputs, Array, Array]:
    """Outputs with the logits (n, K) and the labels (n,) that they are made of."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, n)
    logits = 1.5 * rng.standard_normal((n, K))
    logits[np.arange(n), labels] += 2.0
    return outputs(logits, labels, temperature), logits, labels


def told(confidences: list[float], right: list[bool]) -> Outputs:
    """Outputs of two classes with these confidences: class 0 is predicted, and true where ``right``."""
    p = np.asarray(confidences, dtype=np.float64)
    zero = np.zeros(len(p), np.uint16)
    with np.errstate(divide="ignore"):
        logp = np.log(np.stack([p, 1 - p], 1))
    labels = (~np.asarray(right)).astype(np.uint16)
    classes = np.tile(np.arange(2, dtype=np.int16), (len(p), 1))
    return Outputs(labels, zero, 2, classes=classes, logp=logp)
