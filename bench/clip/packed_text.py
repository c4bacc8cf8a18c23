"""Learned prompts through the text tower without a token computed twice.

The tower is causal: what prompts have in common at their start (the start token and a context before the class name) has
the same hidden states, keys and values in all of them, and is computed once. Tokens behind a prompt's own end token reach
nothing, and are left out. Both are exact.

Legend: K prompts, L positions, D tower width, C embedding width, H heads, d width of a head; the packed sequence has T = P + N
tokens: P common ones and N of single prompts; S the most of one prompt, Z = K S padded places. Axes before these are groups
of K prompts (images, replicas), each with a start of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.clip.blocks import attend, linear, mlp, norm

if TYPE_CHECKING:
    from bench.clip.text import TextTower


@dataclass(frozen=True)
class Pack:
    """Which tokens of K prompts are computed, and where they stand.

    ``shared``: P. ``rows_T``: place of every packed token in the prompts laid end to end (K L,). ``position_T``: its
    position in its prompt. ``end_K``: packed place of every end token. ``own_Z``: for every padded place which of the N
    tokens stands there (0 where none does), ``place_N``: the padded place of each token, ``full_Z``: 1 where a token stands.
    """

    shared: int
    prompts: int
    rows_T: Tensor
    position_T: Tensor
    end_K: Tensor
    own_Z: Tensor
    place_N: Tensor
    full_Z: Tensor


def common(keys_KL: Tensor, eot_K: Tensor) -> int:
    """P: how many leading positions hold the same in all rows; end tokens, from the first one on, are never common."""
    same_L = (keys_KL == keys_KL[:1]).all(0)[: int(eot_K.min())]
    return int(same_L.long().cumprod(0).sum())


def pack_of(eot_K: Tensor, length: int, shared: int, device: torch.device) -> Pack:
    """The pack of K prompts of ``length`` positions with end tokens at ``eot_K``, whose first ``shared`` embeddings agree."""
    assert 0 <= shared <= int(eot_K.min()), "an end token belongs to its own prompt"
    K, n_K = len(eot_K), eot_K.cpu() + 1 - shared
    S = int(n_K.max())
    full_KS = torch.arange(S) < n_K[:, None]
    k_N, s_N = full_KS.nonzero(as_tuple=True)
    end_K = n_K.cumsum(0) - 1
    own_KS = torch.where(full_KS, (end_K + 1 - n_K)[:, None] + torch.arange(S), 0)
    start_P = torch.arange(shared)
    found = (
        torch.cat([start_P, k_N * length + shared + s_N]), torch.cat([start_P, shared + s_N]), shared + end_K,
        own_KS.flatten(), k_N * S + s_N, full_KS.flatten(),
    )  # fmt: skip
    return Pack(shared, K, *(x.to(device) for x in found))


class _Move(torch.autograd.Function):
    """Rows ``take`` of x (..., n, D). Backward they are taken back from where they went, ``back``, times ``weight``: torch's
    own rule adds them up one by one, slowly on a CPU and in any order on a GPU."""

    @staticmethod
    def forward(x: Tensor, take: Tensor, back: Tensor, weight: Tensor | None) -> Tensor:
        return x.index_select(-2, take)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        back, weight = ctx.saved_tensors
        found = grad.index_select(-2, back)
        return found if weight is None else found * weight[:, None], None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None, None, None], x: Tensor, *rows: Any) -> tuple[Tensor, int]:
        moved: Tensor = _Move.apply(x.movedim(in_dims[0], 0), *rows)
        return moved, 0


def _heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (..., H, tokens, d) of (..., tokens, 3 D)."""
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(-3, -2) for part in qkv.chunk(3, -1))
    return q, k, v


def _joined(o: Tensor) -> Tensor:
    return o.transpose(-3, -2).flatten(-2)


def attention(pack: Pack, heads: int) -> Callable[[Tensor], Tensor]:
    """Causal attention within every prompt, (..., T, 3 D) queries, keys and values to (..., T, D)."""
    P, K = pack.shared, pack.prompts
    S = len(pack.own_Z) // K
    ragged = len(pack.place_N) < len(pack.own_Z)
    weight_Z = pack.full_Z if ragged else None

    def causal(like: Tensor, n: int) -> Tensor:
        return like.new_full((n, n), float("-inf")).triu(1)

    def run(qkv: Tensor) -> Tensor:
        own = qkv[..., P:, :]
        if ragged:  # padding stands behind a prompt's tokens, so the causal mask hides it
            own = _Move.apply(own, pack.own_Z, pack.place_N, None)
        q, k, v = _heads(own, heads)
        per_prompt = (K, S)
        k_KS, v_KS = k.unflatten(-2, per_prompt), v.unflatten(-2, per_prompt)
        q = q * q.shape[-1] ** -0.5
        scores_KS = q.unflatten(-2, per_prompt) @ k_KS.mT + causal(q, S)
        if P:
            q_P, k_P, v_P = _heads(qkv[..., :P, :], heads)
            far_KS = (q @ k_P.mT).unflatten(-2, per_prompt)
            far_KS, near_KS = torch.cat([far_KS, scores_KS], -1).softmax(-1).split((P, S), -1)
            o = far_KS.flatten(-3, -2) @ v_P + (near_KS @ v_KS).flatten(-3, -2)
        else:
            o = (scores_KS.softmax(-1) @ v_KS).flatten(-3, -2)
        o = _joined(o)
        if ragged:
            o = _Move.apply(o, pack.place_N, pack.own_Z, weight_Z)
        return torch.cat([_joined(attend(q_P, k_P, v_P, causal(q_P, P))), o], -2) if P else o

    return run


def encode(tower: TextTower, x_KLD: Tensor, pack: Pack) -> Tensor:
    """Raw text features (..., K, C) of embedded prompts (..., K, L, D), what ``tower.encode`` gives for each.

    Differentiable with respect to the embeddings, also under ``torch.func.vmap``. The start is read from the first prompt
    of a group, so its gradient goes there whole: right for embeddings that are made of one tensor, as learned contexts are.
    """
    params = tower.params
    x = x_KLD.flatten(-3, -2).index_select(-2, pack.rows_T) + params["positional_embedding"][pack.position_T]
    within = attention(pack, tower.heads)
    for i in range(tower.layers):
        name = f"transformer.resblocks.{i}"
        weight, bias = params[f"{name}.attn.in_proj_weight"], params[f"{name}.attn.in_proj_bias"]
        o = within(F.linear(norm(x, params, f"{name}.ln_1", tower.eps), weight, bias))
        if i + 1 == tower.layers:  # only end tokens leave the last block
            x, o = x.index_select(-2, pack.end_K), o.index_select(-2, pack.end_K)
        x = x + linear(o, params, f"{name}.attn.out_proj")
        x = x + mlp(norm(x, params, f"{name}.ln_2", tower.eps), params, f"{name}.mlp", tower.activation)
    return norm(x, params, "ln_final", tower.eps) @ params["text_projection"]
