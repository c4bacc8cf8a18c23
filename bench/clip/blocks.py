"""Pieces of a pre-norm transformer block as pure functions of named tensors.

Legend: N sequences, T tokens, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Params = Mapping[str, Tensor]
Activation = Callable[[Tensor], Tensor]


def quick_gelu(x: Tensor) -> Tensor:
    """The activation OpenAI's weights were trained with: x sigmoid(1.702 x) (protocol 1.4)."""
    return x * torch.sigmoid(1.702 * x)


def norm(x: Tensor, params: Params, name: str, eps: float) -> Tensor:
    """LayerNorm over the last axis with the parameters ``name``.weight and ``name``.bias."""
    return F.layer_norm(x, x.shape[-1:], params[f"{name}.weight"], params[f"{name}.bias"], eps)


def linear(x: Tensor, params: Params, name: str) -> Tensor:
    """Affine map with the parameters ``name``.weight and ``name``.bias."""
    return F.linear(x, params[f"{name}.weight"], params[f"{name}.bias"])


def mlp(x: Tensor, params: Params, name: str, activation: Activation) -> Tensor:
    """A block's two-layer perceptron, ``name``.c_fc and ``name``.c_proj."""
    return linear(activation(linear(x, params, f"{name}.c_fc")), params, f"{name}.c_proj")


def block(
    x_NTD: Tensor, params: Params, name: str, heads: int, activation: Activation, eps: float, causal: bool
) -> Tensor:
    """A whole residual attention block on all tokens: (N, T, D) to (N, T, D)."""
    N, T, D = x_NTD.shape
    weight, bias = params[f"{name}.attn.in_proj_weight"], params[f"{name}.attn.in_proj_bias"]
    qkv = F.linear(norm(x_NTD, params, f"{name}.ln_1", eps), weight, bias)
    q, k, v = (part.view(N, T, heads, -1).transpose(1, 2) for part in qkv.chunk(3, -1))
    o_NTD = F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).reshape(N, T, D)
    h_NTD = x_NTD + linear(o_NTD, params, f"{name}.attn.out_proj")
    return h_NTD + mlp(norm(h_NTD, params, f"{name}.ln_2", eps), params, f"{name}.mlp", activation)
