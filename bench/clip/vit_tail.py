"""Compute a ViT's last block, ``ln_post`` and projection from named tensors, for CLS alone (protocol 2.2).

Only the CLS output leaves the tower. So queries, ``out_proj`` and MLP are computed for CLS alone, and keys
and values are not computed for any token: W_k and W_v multiply the query and the attention-weighted sum of
the tokens instead. The block's first LayerNorm standardises the tokens to z, which
depends on no parameter here, and applies a gain and a shift b. The gain moves into the query. The shift is
equal for all tokens, so it drops out of the scores, and it adds W_v b to the output, because attention
weights sum to one.

Legend: B batch, T tokens (CLS first), D tower width, H heads, d = D / H, C embedding width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.clip.blocks import Activation, Params, block, linear, mlp, norm
from bench.clip.pairs import pair


def pooled(params: Params, x_BTD: Tensor, heads: int, activation: Activation, eps: float) -> Tensor:
    """Return the tail's output (B, C), that is ``project`` of ``preproj``."""
    return project(params, preproj(params, x_BTD, heads, activation, eps))


def preproj(params: Params, x_BTD: Tensor, heads: int, activation: Activation, eps: float) -> Tensor:
    """Return CLS after the last block and ``ln_post`` (B, D), the vector that ``proj`` projects."""
    gain_D, shift_D = params["block.ln_1.weight"], params["block.ln_1.bias"]
    x_BTD = x_BTD.to(gain_D.dtype)
    B, _, D = x_BTD.shape
    z_BTD = F.layer_norm(x_BTD, (D,), eps=eps)
    wq, wk, wv = params["block.attn.in_proj_weight"].chunk(3)
    bq, _, bv = params["block.attn.in_proj_bias"].chunk(3)
    q_BD = F.linear(z_BTD[:, 0] * gain_D + shift_D, wq, bq) * (D // heads) ** -0.5
    u_HBD = torch.bmm(q_BD.view(B, heads, D // heads).transpose(0, 1), wk.view(heads, D // heads, D))
    a_HBT = pair(u_HBD * gain_D, z_BTD.transpose(1, 2)).softmax(-1)
    mixed_HBD = pair(a_HBT, z_BTD) * gain_D + shift_D
    o_HBd = torch.bmm(mixed_HBD, wv.view(heads, D // heads, D).transpose(1, 2))
    o_BD = o_HBd.transpose(0, 1).reshape(B, D) + bv
    h_BD = x_BTD[:, 0] + linear(o_BD, params, "block.attn.out_proj")
    h_BD = h_BD + mlp(norm(h_BD, params, "block.ln_2", eps), params, "block.mlp", activation)
    return norm(h_BD, params, "ln_post", eps)


def project(params: Params, v_BD: Tensor) -> Tensor:
    """Apply the last projection, (B, D) to (B, C). It has no bias."""
    return v_BD @ params["proj"]


def all_tokens(params: Params, x_BTD: Tensor, heads: int, activation: Activation, eps: float) -> Tensor:
    """Return every token after the block, ``ln_post`` and ``proj`` (B, T, C), CLS first (protocol 14)."""
    x_BTD = x_BTD.to(params["proj"].dtype)
    h_BTD = block(x_BTD, params, "block", heads, activation, eps, mask_TT=None)
    return project(params, norm(h_BTD, params, "ln_post", eps))
