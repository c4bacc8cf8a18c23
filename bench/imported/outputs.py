"""Turn the probabilities of a test set into what records keep of every image.

Legend: n test images, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BEST = 5  # classes of each image that are kept
# A probability of 0 counts as this one where its logarithm is taken: files round small ones to 0, and one
# such image would make the likelihood infinite. It is what single precision resolves beside 1.
LEAST = 1e-7
_ROWS = 4096  # images that are sorted at once, which takes some 30 bytes a class


def arrays(
    p: NDArray[np.float64], top1: NDArray[np.int64], labels: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Return what is kept of each image, from probabilities (n, K), predictions (n,) and labels (n,).

    - ``classes`` (n, 5): the best classes, the predicted one first; equal probabilities rank by number. With
      fewer than five classes, -1 stands in the rest.
    - ``logp`` (n, 5): their log-probabilities in nats, -inf in the rest.
    - ``rank`` (n,): the rank of the true class, from 0.
    - ``true_logp`` (n,): its log-probability.
    - ``squares`` (n,): the sum of all squared probabilities.
    """
    blocks = [
        _block(p[i : i + _ROWS], top1[i : i + _ROWS], labels[i : i + _ROWS]) for i in range(0, len(p), _ROWS)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _block(
    p: NDArray[np.float64], top1: NDArray[np.int64], labels: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    n, K = p.shape
    every = np.arange(n)
    first = np.ones((n, K), np.int8)
    first[every, top1] = 0  # of equally probable classes the predicted one comes first
    order = np.lexsort((np.broadcast_to(np.arange(K), (n, K)), first, -p))
    kept = min(BEST, K)
    logs = np.log(np.maximum(p, LEAST))
    classes = np.full((n, BEST), -1, np.int16)
    classes[:, :kept] = order[:, :kept]
    logp = np.full((n, BEST), -np.inf, np.float32)
    logp[:, :kept] = np.take_along_axis(logs, order[:, :kept], 1)
    return {
        "classes": classes,
        "logp": logp,
        "rank": (order == labels[:, None]).argmax(1).astype(np.uint16),
        "true_logp": logs[every, labels].astype(np.float32),
        "squares": (p * p).sum(1).astype(np.float32),
    }
