"""Compute the pieces of a pre-norm transformer block as pure functions of named tensors.

Legend: N sequences, T tokens, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Params = Mapping[str, Tensor]
Activation = Callable[[Tensor], Tensor]


def quick_gelu(x: Tensor) -> Tensor:
    """Apply the activation that OpenAI's weights were trained with, x sigmoid(1.702 x) (protocol 1.4)."""
    return x * torch.sigmoid(1.702 * x)


def norm(x: Tensor, params: Params, name: str, eps: float) -> Tensor:
    """Apply LayerNorm over the last axis, with the parameters ``name``.weight and ``name``.bias."""
    return F.layer_norm(x, x.shape[-1:], params[f"{name}.weight"], params[f"{name}.bias"], eps)


class _Product(torch.autograd.Function):
    """The product x W^T with a weight gradient that is laid out row by row.

    Torch's own gradient, mapped over replicas, is a transposed view; optimisers then copy it, and this copy
    costs more than the product. The rule for vmap is written out because the generated one takes longer than
    a small product.
    """

    @staticmethod
    def forward(x: Tensor, W: Tensor) -> Tensor:
        return x @ W.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, W = ctx.saved_tensors
        to_x = grad @ W if ctx.needs_input_grad[0] else None
        to_W = None
        # W is (out, in), or one such for each leading row of x and grad (R, n, ...).
        if ctx.needs_input_grad[1]:
            kept = W.dim() - 2
            to_W = grad.flatten(kept, -2).mT @ x.flatten(kept, -2)
        return to_x, to_W

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], x: Tensor, W: Tensor) -> tuple[Tensor, int]:
        if in_dims[1] is None:
            assert in_dims[0] is not None
            return product(x.movedim(in_dims[0], 0), W), 0
        x = x.expand(info.batch_size, *x.shape) if in_dims[0] is None else x.movedim(in_dims[0], 0)
        rows = W.dim() - 2  # the axis behind this one and those of an inner vmap, which x and W share
        out = product(x.flatten(rows, -2), W.movedim(in_dims[1], 0))
        return torch.unflatten(out, rows, x.shape[rows:-1]), 0


def product(x: Tensor, W: Tensor) -> Tensor:
    """Return x W^T for x (..., in) and W (out, in). It is differentiable, also under vmap."""
    out: Tensor = _Product.apply(x, W)
    return out


def linear(x: Tensor, params: Params, name: str) -> Tensor:
    """Apply the affine map with the parameters ``name``.weight and ``name``.bias."""
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    # Only stacked weights gain from ``product``. One weight for all replicas is left to torch's own product.
    stacked = torch.is_grad_enabled() and torch._C._functorch.is_batchedtensor(weight)
    return product(x, weight) + bias if stacked else F.linear(x, weight, bias)


def mlp(x: Tensor, params: Params, name: str, activation: Activation) -> Tensor:
    """Apply a block's two-layer perceptron, ``name``.c_fc and ``name``.c_proj."""
    return linear(activation(linear(x, params, f"{name}.c_fc")), params, f"{name}.c_proj")


def attend(q: Tensor, k: Tensor, v: Tensor, mask_TT: Tensor | None) -> Tensor:
    """Apply softmax attention to (N, H, T, d) each.

    With a mask it is written out: torch's fused kernels do not batch under vmap, and on text (T of 10 to 30)
    they save nothing.
    """
    if mask_TT is None:
        return F.scaled_dot_product_attention(q, k, v)
    scale: float = q.shape[-1] ** -0.5
    return (q * scale @ k.transpose(-1, -2) + mask_TT).softmax(-1) @ v


def block(
    x_NTD: Tensor,
    params: Params,
    name: str,
    heads: int,
    activation: Activation,
    eps: float,
    mask_TT: Tensor | None,
) -> Tensor:
    """Apply a residual attention block to all tokens, (N, T, D) to (N, T, D).

    The mask is added to the scores.
    """
    N, T, D = x_NTD.shape
    weight, bias = params[f"{name}.attn.in_proj_weight"], params[f"{name}.attn.in_proj_bias"]
    qkv = F.linear(norm(x_NTD, params, f"{name}.ln_1", eps), weight, bias)
    q, k, v = (part.view(N, T, heads, -1).transpose(1, 2) for part in qkv.chunk(3, -1))
    o_NTD = attend(q, k, v, mask_TT).transpose(1, 2).reshape(N, T, D)
    h_NTD = x_NTD + linear(o_NTD, params, f"{name}.attn.out_proj")
    return h_NTD + mlp(norm(h_NTD, params, f"{name}.ln_2", eps), params, f"{name}.mlp", activation)
