"""How many images each search point classifies right.

Legend: G search points, B images, K classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.interface import Lines


def count(piece: Tensor | Lines, y_B: Tensor) -> Tensor:
    """(G,) images whose largest logit is that of their class ``y_B``; the first of equal logits is the largest."""
    return _on_lines(piece, y_B) if isinstance(piece, Lines) else (piece.argmax(-1) == y_B).sum(-1)


def _on_lines(lines: Lines, y_B: Tensor) -> Tensor:
    """The count without the (G, B, K) logits: class y wins against k where g + factor d > 0, with g and d the lead of y
    in base and slope, so each image is right on one interval of the factor.

    Equal logits go to the class that comes first: the interval is open towards classes before y, closed towards others.
    A logit that is not a number leaves its image wrong.
    """
    y_B1 = y_B[:, None]
    g_BK = lines.base_BK.gather(1, y_B1) - lines.base_BK
    d_BK = lines.slope_BK.gather(1, y_B1) - lines.slope_BK
    later_BK = torch.arange(g_BK.shape[1], device=y_B.device) >= y_B1
    always_BK = torch.where(later_BK, -math.inf, math.inf).to(g_BK.dtype)  # where both are equal, order alone decides
    at_BK = torch.where((g_BK == 0) & (d_BK == 0), always_BK, -g_BK / d_BK)
    falls_BK = d_BK < 0
    least_BK, most_BK = torch.where(falls_BK, -math.inf, at_BK), torch.where(falls_BK, at_BK, math.inf)
    factor_G1 = lines.factor_G[:, None]
    right_GB = factor_G1 >= torch.where(later_BK, least_BK, -math.inf).amax(1)
    right_GB &= factor_G1 > torch.where(later_BK, -math.inf, least_BK).amax(1)
    right_GB &= factor_G1 <= torch.where(later_BK, most_BK, math.inf).amin(1)
    right_GB &= factor_G1 < torch.where(later_BK, math.inf, most_BK).amin(1)
    return right_GB.sum(1)
