"""Encode learned prompts with their common start computed once instead of K times, and without padding.

The text tower is causal. So what prompts have in common at their start (the start token, and a context before
the class name) has the same hidden states, keys and values in all of them. A row of the tower therefore holds
that start once, and behind it the rest of many prompts; a mask lets every token see the start and its own
prompt only. Tokens behind a prompt's end token cannot reach the output and are left out. Both are exact.

Legend: K prompts, L positions, D tower width, C embedding width, H heads; G rows of T packed tokens, P common
ones at the start of each. Axes before these are groups of K prompts with a start of their own (images,
replicas).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.clip import checkpointing
from bench.clip.blocks import attend, linear, mlp, norm
from bench.clip.packing import Pack
from bench.clip.text import TextTower


def encode(tower: TextTower, x_KLD: Tensor, pack: Pack) -> Tensor:
    """Return raw text features (..., K, C) of embedded prompts (..., K, L, D), the same as ``tower.encode``.

    They are differentiable with respect to the embeddings, also under ``torch.func.vmap``. The start is read
    from the first prompt of a group, so all of its gradient goes to that prompt. This is right for embeddings
    that are made of one tensor, as learned contexts are.
    """
    laid = x_KLD.flatten(-3, -2).index_select(-2, pack.source_GT.flatten())
    x = torch.unflatten(laid, -2, pack.source_GT.shape)
    x = x + tower.params["positional_embedding"][pack.position_GT]
    return checkpointing.run(_layers, tower, x, pack)


def _layers(tower: TextTower, x: Tensor, pack: Pack) -> Tensor:
    """Return raw text features (..., K, C) of packed rows with their positions (..., G, T, D)."""
    params = tower.params
    for i in range(tower.layers):
        name = f"transformer.resblocks.{i}"
        weight, bias = params[f"{name}.attn.in_proj_weight"], params[f"{name}.attn.in_proj_bias"]
        qkv = F.linear(norm(x, params, f"{name}.ln_1", tower.eps), weight, bias)
        q, k, v = (
            torch.unflatten(part, -1, (tower.heads, -1)).transpose(-3, -2) for part in qkv.chunk(3, -1)
        )
        o = attend(q, k, v, pack.mask_G1TT).transpose(-3, -2).flatten(-2)
        if i + 1 == tower.layers:  # of the last block only the end tokens are needed
            x, o = (y.flatten(-3, -2).index_select(-2, pack.end_K) for y in (x, o))
        x = x + linear(o, params, f"{name}.attn.out_proj")
        x = x + mlp(norm(x, params, f"{name}.ln_2", tower.eps), params, f"{name}.mlp", tower.activation)
    return norm(x, params, "ln_final", tower.eps) @ params["text_projection"]
