"""Count how many images each search point classifies right.

Legend: G search points, B images, K classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.interface import Lines


def count(piece: Tensor | Lines, y_B: Tensor) -> Tensor:
    """Return for each search point how many images have their largest logit at their class ``y_B`` (G,).

    Among equal logits the first class counts.
    """
    return _on_lines(piece, y_B) if isinstance(piece, Lines) else (piece.argmax(-1) == y_B).sum(-1)


def _on_lines(lines: Lines, y_B: Tensor) -> Tensor:
    """Count as ``count`` does, without forming the (G, B, K) logits base + factor * slope.

    Class y beats class k if factor * d > g, where d = slope of y - slope of k, and g = base of k - base of y.
    So each image is right for the factors in one open interval. For some images the interval does not decide:
    two lines are equal, a logit is not a number, or a factor lies on an end of the interval, so that two
    logits are equal. For these the logits themselves are formed.
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
