"""Compute what a pooling head attends to: the softmax weights of its one query (protocol 2.1, 2.2).

Legend: B batch, T tokens as the head sees them (mean token or CLS first), D tower width, H heads, d = D / H.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.clip import attnpool
from bench.clip.backbone import Backbone
from bench.clip.blocks import Params, linear, norm


def weights(tower: Backbone, params: Params, x_BTD: Tensor) -> Tensor:
    """Return softmax weights (B, H, T) of the head with ``params`` on the tap ``dense``.

    Each row sums to one. The first token is the mean token of the pool, or CLS. The others are the grid
    positions in row-major order.
    """
    head = tower.head
    if head.family == "rn":
        z_BTD = attnpool.with_mean(params, x_BTD)
        q_BD, k_BTD = linear(z_BTD[:, 0], params, "q_proj"), linear(z_BTD, params, "k_proj")
    else:
        eps = tower.model.visual.transformer.resblocks[-1].ln_1.eps
        z_BTD = norm(x_BTD.to(params["block.ln_1.weight"].dtype), params, "block.ln_1", eps)
        wq, wk, _ = params["block.attn.in_proj_weight"].chunk(3)
        bq, bk, _ = params["block.attn.in_proj_bias"].chunk(3)
        q_BD, k_BTD = F.linear(z_BTD[:, 0], wq, bq), F.linear(z_BTD, wk, bk)
    B, T, D = k_BTD.shape
    d = D // head.heads
    q_BH1d, k_BHTd = q_BD.view(B, head.heads, 1, d), k_BTD.view(B, T, head.heads, d).transpose(1, 2)
    return (q_BH1d @ k_BHTd.transpose(2, 3) / math.sqrt(d)).softmax(-1)[:, :, 0]


def maps(weights_BHT: Tensor) -> Tensor:
    """Return the mean over heads of the weights on the grid positions (B, S, S), scaled to sum to one.

    The weight of the mean token or CLS belongs to no place in the image and is left out.
    """
    grid_BP = weights_BHT.mean(1)[:, 1:]
    side = math.isqrt(grid_BP.shape[1])
    return torch.unflatten(grid_BP / grid_BP.sum(-1, keepdim=True), 1, (side, side))
