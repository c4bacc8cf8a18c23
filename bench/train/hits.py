"""Count how many images each search point classifies right.

Legend: G search points, B images, K classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.interface import Lines


def count(piece: Tensor | Lines, y_B: Tensor) -> Tensor:
    """Return (G,) images whose largest logit is that of their class ``y_B``; of equals the first counts."""
    return _on_lines(piece, y_B) if isinstance(piece, Lines) else (piece.argmax(-1) == y_B).sum(-1)


def _on_lines(lines: Lines, y_B: Tensor) -> Tensor:
    """Count without forming the (G, B, K) logits.

    Class y beats k if factor * d > g, with d the lead of y in slope and g its lag in base. So each image is
    right on one open interval of the factor. The logits themselves decide where the interval says nothing
    (equal lines, logits that are not numbers) and where a factor lies on an end of it, that is where logits
    are equal.
    """
    y_B1 = y_B[:, None]
    g_BK = lines.base_BK - lines.base_BK.gather(1, y_B1)
    d_BK = lines.slope_BK.gather(1, y_B1) - lines.slope_BK
    at_BK = (g_BK / d_BK).scatter_(1, y_B1, -math.inf)  # d is zero at y itself, which sets no lower bound
    falls_BK = d_BK < 0
    least_B = torch.where(falls_BK, -math.inf, at_BK).amax(1)
    most_B = torch.where(falls_BK, at_BK, math.inf).amin(1)
    factor_G1 = lines.factor_G[:, None]
    right_GB = (factor_G1 > least_B) & (factor_G1 < most_B)
    open_B = ((factor_G1 == least_B) | (factor_G1 == most_B)).any(0) | least_B.isnan() | most_B.isnan()
    open_B |= lines.base_BK.gather(1, y_B1)[:, 0].isnan() | lines.slope_BK.gather(1, y_B1)[:, 0].isnan()
    if bool(open_B.any()):
        rest = Lines(lines.base_BK[open_B], lines.slope_BK[open_B], lines.factor_G)
        right_GB[:, open_B] = rest.logits().argmax(-1) == y_B[open_B]
    return right_GB.sum(1)
