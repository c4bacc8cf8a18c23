"""Turn logits into what is kept of every test image: the best classes, their probabilities, and sums.

With these arrays every metric of ``bench.metrics`` can be computed later, without the model. Softmax is taken
in double precision, because in single precision a wide gap makes a probability exactly 1 (protocol 24.5).

Legend: n test images, B images of a slice, K classes of the test set, T the temperature of the fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import BenchError
from bench.records.outcomes import TOP

_PIECE = 64 << 20  # bytes that the probabilities of one piece take: pieces bound memory, not numbers
BYTES = 52  # that an image takes, its label included, without logits
Arrays = dict[str, NDArray[np.generic]]


def empty(n: int, K: int, scaled: bool, keep_logits: bool = False) -> Arrays:
    """Return the arrays of n test images, to be filled by ``fill``. Rows of fewer than 5 classes are padded.

    Raises BenchError for more classes than 16 bits number.

    ``top1`` (n,) and, of the best five, ``classes`` (n, 5), padded with -1, and ``logp`` (n, 5), padded with
    -inf; of the true class ``rank`` (n,) from 0 and ``true_logp`` (n,); ``squares`` (n,), the sum of squared
    probabilities. If ``scaled``, at T also ``lse_t`` (n,), the log-sum-exp of the log-probabilities divided
    by T, and ``squares_t`` (n,). If ``keep_logits``, ``logits`` (n, K) in half precision.
    """
    most = np.iinfo(np.int16).max + 1
    if most < K:
        raise BenchError(f"a test set of {K} classes: records can number {most}; evaluate fewer")
    arrays: Arrays = {
        "top1": np.zeros(n, np.uint16),
        "classes": np.full((n, TOP), -1, np.int16),
        "logp": np.full((n, TOP), -np.inf, np.float32),
        "rank": np.zeros(n, np.uint16),
        "true_logp": np.zeros(n, np.float32),
        "squares": np.zeros(n, np.float32),
    }
    if scaled:
        arrays |= {"lse_t": np.zeros(n, np.float32), "squares_t": np.zeros(n, np.float32)}
    if keep_logits:
        arrays["logits"] = np.zeros((n, K), np.float16)
    return arrays


def fill(
    arrays: Arrays,
    start: int,
    logits_BK: Tensor,
    labels: Sequence[int],
    temperature: float | None,
) -> None:
    """Fill the rows from ``start`` on with what ``logits_BK`` say of images of the classes ``labels`` (B,).

    Equal logits rank the lower class first. The logits are finite. If they are to be kept and half precision
    cannot hold one of them, all ``logits`` are in single precision. Raises BenchError if logits lie so far
    apart that single precision cannot hold their log-probabilities.
    """
    B, K = logits_BK.shape
    y_B = torch.as_tensor(labels, dtype=torch.long, device=logits_BK.device)
    rows = max(1, _PIECE // (8 * K))
    for first in range(0, B, rows):
        piece, y = logits_BK[first : first + rows], y_B[first : first + rows]
        found = _piece(piece, y, temperature)
        if min(float(found[name].min()) for name in ("logp", "true_logp")) < float(np.finfo(np.float32).min):
            raise BenchError(
                f"its logits lie too far apart ({float(piece.min()):.3g} to {float(piece.max()):.3g}): "
                "a log-probability is beyond single precision; its training diverged, or a setting is out of "
                "range"
            )
        for name, x in found.items():
            into = arrays[name][start + first : start + first + len(piece)]
            (into if x.ndim == 1 else into[:, : x.shape[1]])[...] = x.cpu().numpy()
        if "logits" in arrays:
            half = piece.half()
            if not half.isfinite().all():
                arrays["logits"] = arrays["logits"].astype(np.float32, copy=False)
            exact = half if arrays["logits"].dtype == np.float16 else piece.float()
            arrays["logits"][start + first : start + first + len(piece)] = exact.cpu().numpy()


def _piece(logits_BK: Tensor, y_B: Tensor, temperature: float | None) -> dict[str, Tensor]:
    """Return the arrays of ``empty`` but the logits, for a few images."""
    # argsort is used and not topk, because equal logits must rank alike on every device: lower classes first.
    order_BK = logits_BK.argsort(dim=-1, descending=True, stable=True)
    logp_BK = logits_BK.double().log_softmax(-1)
    best = order_BK[:, :TOP]
    arrays = {
        "top1": order_BK[:, 0],
        "classes": best,
        "logp": logp_BK.gather(1, best),
        "rank": (order_BK == y_B[:, None]).int().argmax(1),
        "true_logp": logp_BK.gather(1, y_B[:, None])[:, 0],
        "squares": logp_BK.exp().square().sum(1),
    }
    if temperature is not None:
        scaled_BK = logp_BK / temperature
        lse_B = scaled_BK.logsumexp(1)
        squares_B = (scaled_BK - lse_B[:, None]).exp().square().sum(1)
        arrays |= {"lse_t": lse_B, "squares_t": squares_B}
    return arrays
