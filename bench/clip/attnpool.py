"""Compute the attention pool of CLIP's ResNets from named tensors, in a form that costs less (protocol 2.1).

The pool returns the output of one query only, that of the mean token. So W_k and W_v need not be multiplied
with every token. Per head, the score of token j is (W_k^T q) . x_j, and the head's output is
W_v (sum_j a_j x_j), where a_j is the softmax of the scores. This module calls it the folded attention.
The key bias shifts all scores of a head by the same amount, so softmax drops it and its gradient is exactly
zero. A token is a feature plus a position, x_j = f_j + p_j. Several replicas of the weights may read the same
features. Features and positions are then multiplied separately, so that no replica stores tokens of its own.

Legend: R replicas, B batch, S grid positions, T = S + 1 tokens, D tower width, H heads, d = D / H, C
embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.clip.blocks import Params, linear

_WEIGHTS = ("positional_embedding", *(f"{n}_proj.{part}" for n in "qkv" for part in ("weight", "bias")))
_LAST = ("c_proj.weight", "c_proj.bias")


def with_mean(params: Params, x_BSD: Tensor) -> Tensor:
    """Turn (B, S, D) grid tokens into the pool's (B, T, D).

    The mean is put in front, and then every token gets its position.
    """
    return _mean_first(params, x_BSD) + params["positional_embedding"]


def pooled(params: Params, x_BSD: Tensor, heads: int) -> Tensor:
    """Return the pool's output (B, C), which equals ``project`` of ``preproj``.

    It can be differentiated once. Both steps are one operation here, because mapping an operation over
    replicas costs as much time as several small products.
    """
    return _attended(params, x_BSD, heads, (*_WEIGHTS, *_LAST))


def preproj(params: Params, x_BSD: Tensor, heads: int) -> Tensor:
    """Return the attended vector (B, D) that ``c_proj`` projects. It can be differentiated once."""
    return _attended(params, x_BSD, heads, _WEIGHTS)


def _attended(params: Params, x_BSD: Tensor, heads: int, names: Sequence[str]) -> Tensor:
    out: Tensor = _Attend.apply(heads, _mean_first(params, x_BSD), *(params[name] for name in names))[0]
    return out


def project(params: Params, v_BD: Tensor) -> Tensor:
    """Apply the last projection, (B, D) to (B, C)."""
    return linear(v_BD, params, "c_proj")


def all_tokens(params: Params, x_BSD: Tensor, heads: int) -> Tensor:
    """Return the output of every query (B, T, C), the mean token's first (protocol 14).

    All queries are needed here, so keys and values of all tokens are computed in the usual way.
    """
    x_BTD = with_mean(params, x_BSD)
    B, T, D = x_BTD.shape
    q, k, v = (linear(x_BTD, params, f"{n}_proj").view(B, T, heads, -1).transpose(1, 2) for n in "qkv")
    o_BHTd = F.scaled_dot_product_attention(q, k, v)
    return project(params, o_BHTd.transpose(1, 2).reshape(B, T, D))


def _mean_first(params: Params, x_BSD: Tensor) -> Tensor:
    """Put the mean of the features in front of them, in the parameters' precision.

    The result contains no weights, so replicas can share it.
    """
    x_BSD = x_BSD.to(params["positional_embedding"].dtype)
    return torch.cat([x_BSD.mean(1, keepdim=True), x_BSD], 1)


class _Attend(torch.autograd.Function):
    """The folded attention, with a forward and a backward pass of its own.

    PyTorch's own gradients would give the same numbers, but under ``torch.func.vmap`` they cost more: they
    copy the features for every replica, compute the gradient of every token, and return gradients of weights
    as transposed views, which the optimiser has to copy.

    Inputs: ``heads``; the features (B, T, D); the weights in the order of ``_WEIGHTS``, optionally followed
    by those of ``c_proj`` (``_LAST``), which project the output. Weights may have a leading replica axis; the
    features then have this axis too, or are shared by the replicas and lack it. Outputs: the result, and then
    the values that the backward pass reads.
    """

    @staticmethod
    def forward(heads: int, f: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        if weights[0].dim() == 2:
            return tuple(x[0] for x in _forward(heads, f[None], *(w[None] for w in weights)))
        return _forward(heads, f if f.dim() == 4 else f[None], *weights)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        heads, f, pos, wq, _, wk, bk, wv, _, *last = inputs
        ctx.heads = heads
        ctx.mark_non_differentiable(*output[1:])
        # Outputs without a gradient then reach ``backward`` as None and not as tensors of zeros. The first
        # output too may have none.
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(f, *last[:1], pos, wq, wk, bk, wv, *output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_out: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if to_out is None:
            return (None,) * len(ctx.needs_input_grad)
        f, *rest = ctx.saved_tensors
        one, shared = rest[0].dim() == 2, f.dim() == 3
        if one:
            to_out, rest = to_out[None], [x[None] for x in rest]
        to_o, last = to_out, tuple[Tensor, ...]()
        if len(ctx.needs_input_grad) > 2 + len(_WEIGHTS):
            wc_RCD, *rest, o_RBD = rest
            to_o, last = torch.bmm(to_out, wc_RCD), (torch.bmm(to_out.mT, o_RBD), to_out.sum(1))
        to_f, grads = _backward(ctx.needs_input_grad[1], f[None] if shared else f, to_o, *rest)
        if to_f is not None and shared:
            to_f = to_f.sum(0)
        return None, to_f, *((g[0] for g in (*grads, *last)) if one else (*grads, *last))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], heads: int, f: Tensor, *weights: Tensor) -> Any:
        n = info.batch_size

        def leading(x: Tensor, dim: int | None) -> Tensor:
            # ``x.movedim(0, 0)`` would change nothing, but be one more step of the backward pass.
            return x.expand(n, *x.shape) if dim is None else x.movedim(dim, 0) if dim else x

        stacked = [leading(w, dim) for w, dim in zip(weights, in_dims[2:], strict=True)]
        inner = stacked[0].shape[1:-2]  # empty, or the replica axis of an inner vmap
        if in_dims[1] is not None or f.dim() == 4:
            f = leading(f, in_dims[1])
            if f.dim() == 3 + len(inner):
                f = f.unsqueeze(1)
            f = f.expand(n, *inner, *f.shape[-3:]).reshape(-1, *f.shape[-3:])
        out = _Attend.apply(heads, f, *(w.flatten(0, len(inner)) for w in stacked))
        return tuple(x.unflatten(0, (n, *inner)) for x in out) if inner else out, (0,) * len(out)


def _forward(
    heads: int,
    f_RBTD: Tensor,
    pos_RTD: Tensor,
    wq_RDD: Tensor,
    bq_RD: Tensor,
    wk_RDD: Tensor,
    bk_RD: Tensor,
    wv_RDD: Tensor,
    bv_RD: Tensor,
    *last: Tensor,
) -> tuple[Tensor, ...]:
    """Return output, q (R, H, B, d), u = W_k^T q, attention (R, H, B, T) and mixed tokens (R, H, B, D).

    The output is (R, B, D). With ``last``, the weights of ``c_proj``, it is (R, B, C), and the vector before
    the projection (R, B, D) is returned in addition, as the last value.
    """
    R, D = bq_RD.shape
    lead = R, heads, f_RBTD.shape[1]
    x, pos = _tokens(f_RBTD, pos_RTD)
    q_RBD = torch.baddbmm(bq_RD[:, None], f_RBTD[:, :, 0] + pos_RTD[:, :1], wq_RDD.mT) * (D // heads) ** -0.5
    q_RHBd = _by_head(q_RBD, heads)
    u_RHBD = torch.bmm(q_RHBd.flatten(0, 1), wk_RDD.reshape(R * heads, -1, D)).view(*lead, D)
    a_RHBT = _times(u_RHBD, x.mT, None if pos is None else pos.mT).softmax(-1)
    mixed_RHBD = _times(a_RHBT, x, pos)
    o_RHBd = torch.bmm(mixed_RHBD.flatten(0, 1), wv_RDD.reshape(R * heads, -1, D).mT).view(*lead, -1)
    o_RBD = _merged(o_RHBd) + bv_RD[:, None]
    kept = q_RHBd, u_RHBD, a_RHBT, mixed_RHBD
    if not last:
        return o_RBD, *kept
    wc_RCD, bc_RC = last
    return torch.baddbmm(bc_RC[:, None], o_RBD, wc_RCD.mT), *kept, o_RBD


def _backward(
    features: bool,
    f_RBTD: Tensor,
    to_o_RBD: Tensor,
    pos_RTD: Tensor,
    wq_RDD: Tensor,
    wk_RDD: Tensor,
    bk_RD: Tensor,
    wv_RDD: Tensor,
    q_RHBd: Tensor,
    u_RHBD: Tensor,
    a_RHBT: Tensor,
    mixed_RHBD: Tensor,
) -> tuple[Tensor | None, tuple[Tensor, ...]]:
    """Return the gradients of the features (None unless ``features``) and of the weights.

    Those of the weights are in the order of ``_WEIGHTS``.
    """
    R, H, B, D = lead = u_RHBD.shape
    x, pos = _tokens(f_RBTD, pos_RTD)
    to_o = _by_head(to_o_RBD, H).flatten(0, 1)
    to_wv = torch.bmm(to_o.mT, mixed_RHBD.flatten(0, 1)).view(R, D, D)
    to_mixed = torch.bmm(to_o, wv_RDD.reshape(R * H, -1, D)).view(lead)
    to_a = a_RHBT * _times(to_mixed, x.mT, None if pos is None else pos.mT)
    to_s = to_a - a_RHBT * to_a.sum(-1, keepdim=True)
    to_u = _times(to_s, x, pos).flatten(0, 1)
    to_wk = torch.bmm(q_RHBd.flatten(0, 1).mT, to_u).view(R, D, D)
    to_q_RHBd = torch.bmm(to_u, wk_RDD.reshape(R * H, -1, D).mT).view(R, H, B, -1)
    to_q_RBD = _merged(to_q_RHBd) * (D // H) ** -0.5
    to_wq = torch.bmm(to_q_RBD.mT, (f_RBTD[:, :, 0] + pos_RTD[:, :1]).expand(R, -1, -1))
    to_bq = to_q_RBD.sum(1)
    # All images have the same positions, so their gradient is formed at once and not image by image.
    a, m, s, u = (x.reshape(R, H * B, -1) for x in (a_RHBT, to_mixed, to_s, u_RHBD))
    to_pos = torch.baddbmm(torch.bmm(a.mT, m), s.mT, u)
    to_pos[:, :1] += torch.bmm(to_bq[:, None], wq_RDD)
    to_f = None
    if features:
        a, m, s, u = (x.transpose(1, 2) for x in (a_RHBT, to_mixed, to_s, u_RHBD))
        to_f = a.mT @ m + s.mT @ u
        to_f[:, :, 0] += torch.bmm(to_q_RBD, wq_RDD)
    return to_f, (to_pos, to_wq, to_bq, to_wk, torch.zeros_like(bk_RD), to_wv, to_o_RBD.sum(1))


def _tokens(f_RBTD: Tensor, pos_RTD: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the tokens and None, or features and positions separately if replicas share the features."""
    return (f_RBTD, pos_RTD) if len(f_RBTD) < len(pos_RTD) else (f_RBTD + pos_RTD[:, None], None)


def _times(y_RHBM: Tensor, z_RBMN: Tensor, pos_RMN: Tensor | None) -> Tensor:
    """Return y z + y pos: the rows of all heads times each image's z, plus their product with the positions.

    z is (R, B, M, N), or (1, B, M, N) if replicas share it. The result is contiguous, (R, H, B, N).
    """
    R, H, B, M = y_RHBM.shape
    # If replicas share z, the heads of all replicas become rows of one product, and the images stay in place.
    if len(z_RBMN) < R:
        rows = y_RHBM.reshape(R * H, B, M).transpose(0, 1)
        out = torch.bmm(rows, z_RBMN[0]).view(B, R, H, -1).permute(1, 2, 0, 3)
    else:
        rows = y_RHBM.transpose(1, 2).reshape(R * B, H, M)
        out = torch.bmm(rows, z_RBMN.reshape(R * B, M, -1)).view(R, B, H, -1).transpose(1, 2)
    if pos_RMN is None:
        return out.contiguous()
    return torch.bmm(y_RHBM.reshape(R, H * B, M), pos_RMN).view(R, H, B, -1).add_(out)


def _by_head(x_RBD: Tensor, heads: int) -> Tensor:
    """Reshape (R, B, D) to (R, H, B, d), contiguous."""
    return torch.unflatten(x_RBD, -1, (heads, -1)).transpose(1, 2).contiguous()


def _merged(x_RHBd: Tensor) -> Tensor:
    """Reshape (R, H, B, d) to (R, B, D)."""
    return x_RHBd.transpose(1, 2).flatten(-2)
