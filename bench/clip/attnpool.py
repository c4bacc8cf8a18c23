"""ModifiedResNet's attention pool as a pure function of named tensors, folded to its single query (protocol 2.1).

Only the mean token's output leaves the pool, so the keys and values of the other tokens are never formed: per head the
score of token j is (W_k^T q) . x_j, and the head's output is W_v (sum_j a_j x_j). The key bias shifts all scores of a
head alike, so softmax drops it and its gradient is exactly zero.

Legend: B batch, S grid positions, T = S + 1 tokens, D tower width, H heads, d = D / H, C embedding width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.clip.blocks import Params, linear


def with_mean(params: Params, x_BSD: Tensor) -> Tensor:
    """(B, S, D) grid tokens to the pool's (B, T, D): the mean goes first, then the position table is added to all."""
    positions_TD = params["positional_embedding"]
    x_BSD = x_BSD.to(positions_TD.dtype)
    return torch.cat([x_BSD.mean(1, keepdim=True), x_BSD], 1) + positions_TD


def preproj(params: Params, x_BSD: Tensor, heads: int) -> Tensor:
    """(B, D): the attended vector that ``c_proj`` projects."""
    x_BTD = with_mean(params, x_BSD)
    B, _, D = x_BTD.shape
    q_BD = linear(x_BTD[:, 0], params, "q_proj") * (D // heads) ** -0.5
    wk_HdD = params["k_proj.weight"].view(heads, D // heads, D)
    wv_HdD = params["v_proj.weight"].view(heads, D // heads, D)
    # Heads lead in products with weights, images in products with tokens: plain strides for both, nothing is copied.
    u_HBD = torch.bmm(q_BD.view(B, heads, D // heads).transpose(0, 1), wk_HdD)
    a_BHT = torch.bmm(u_HBD.transpose(0, 1), x_BTD.transpose(1, 2)).softmax(-1)
    mixed_BHD = torch.bmm(a_BHT, x_BTD)
    o_HBd = torch.bmm(mixed_BHD.transpose(0, 1), wv_HdD.transpose(1, 2))
    # The key bias takes part with weight zero, so that differentiating by it is legal and gives exactly zero.
    return o_HBd.transpose(0, 1).reshape(B, D) + params["v_proj.bias"] + 0 * params["k_proj.bias"]


def project(params: Params, v_BD: Tensor) -> Tensor:
    """(B, D) to (B, C): the last projection."""
    return linear(v_BD, params, "c_proj")


def all_tokens(params: Params, x_BSD: Tensor, heads: int) -> Tensor:
    """(B, T, C): the output of every query, the mean token's first (protocol 14); nothing to fold here."""
    x_BTD = with_mean(params, x_BSD)
    B, T, D = x_BTD.shape
    q, k, v = (
        linear(x_BTD, params, f"{n}_proj").view(B, T, heads, -1).transpose(1, 2)
        for n in "qkv"
    )
    o_BHTd = F.scaled_dot_product_attention(q, k, v)
    return project(params, o_BHTd.transpose(1, 2).reshape(B, T, D))
