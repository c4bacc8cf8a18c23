"""Bound the memory that the activations of packed prompts take, by gradient checkpointing.

Activations may take a share of the device's memory. Prompts whose activations fit into it run through the
text tower at once. Otherwise the prompts run in pieces, one after the other. A piece is several whole groups,
or some rows of one group. Of each piece only the input embeddings are kept, and the backward pass runs the
piece again to get its activations. This is a third more work and gives the same numbers.

Legend: N groups (one for each replica or image); G rows of T packed tokens and K prompts in each group; D
tower width, C embedding width.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bench.clip.packing import Pack, part
from bench.clip.text import TextTower

Layers = Callable[[TextTower, Tensor, Pack], Tensor]  # (N, G, T, D) -> (N, K, C)

# These are shares of the device's whole memory and not of the memory that is free. So every step cuts the
# same prompts into the same pieces, and a GPU need not be asked while a CUDA graph is recorded. The share is
# smaller on a processor, because several worker processes use its memory.
SHARE = {"cpu": 1 / 8, "cuda": 1 / 4}
# How many vectors of the tower's width autograd keeps for one token in one block, beside attention weights:
# the inputs and outputs of the two norms, queries, keys and values, and the perceptron's hidden layer before,
# in and after its activation.
WIDTHS = 15


@cache
def budget(device: torch.device) -> int:
    """Return how many bytes the activations of prompts may take."""
    if device.type == "cuda":
        return int(SHARE["cuda"] * torch.cuda.get_device_properties(device).total_memory)
    return int(SHARE["cpu"] * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def row_bytes(tower: TextTower, T: int, D: int, itemsize: int, kept: int) -> int:
    """Return the bytes of a row's activations in ``kept`` blocks and in the block that is being computed."""
    return (kept + 1) * T * (WIDTHS * D + tower.heads * T) * itemsize


def at_once(tower: TextTower, x_GTD: Tensor) -> tuple[int, int]:
    """Return the size of a piece: how many groups, and how many rows of each, run together.

    ``x_GTD`` is (..., G, T, D), and ``torch.func.vmap`` may map it over replicas.
    """
    *_, G, T, D = x_GTD.shape
    N = _unmapped(x_GTD).numel() // (G * T * D)
    kept = tower.layers if torch.is_grad_enabled() else 0
    rows = budget(x_GTD.device) // row_bytes(tower, T, D, x_GTD.element_size(), kept)
    return _even_size(N, rows // G), _even_size(G, rows)


def _even_size(n: int, most: int) -> int:
    """Return the size of nearly equal parts of ``n``, each of at most ``most`` but at least one."""
    return math.ceil(n / math.ceil(n / max(1, most)))


def _unmapped(x: Tensor) -> Tensor:
    """Return the plain tensor inside a tensor that ``torch.func.vmap`` maps over, with all mapped axes."""
    while torch._C._functorch.is_batchedtensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x


def run(layers: Layers, tower: TextTower, x_GTD: Tensor, pack: Pack) -> Tensor:
    """Run ``layers`` on packed prompts (..., G, T, D) and return features (..., K, C).

    The prompts run in pieces if their activations would exceed the budget. The result is differentiable, also
    under ``torch.func.vmap``.
    """
    T, D = x_GTD.shape[-2:]
    sizes = at_once(tower, x_GTD)
    if sizes[0] * sizes[1] * T * D >= _unmapped(x_GTD).numel():
        return layers(tower, x_GTD, pack)
    order_K = pack.end_K.argsort()  # sorts prompts by their row
    features: Tensor = _Pieces.apply(x_GTD, layers, tower, replace(pack, end_K=pack.end_K[order_K]), sizes)
    return features.index_select(-2, order_K.argsort())


class _Pieces(torch.autograd.Function):
    """The layers as one operation that runs piece by piece, forward and backward.

    Between the two passes only the input embeddings are kept.
    """

    @staticmethod
    def forward(x: Tensor, layers: Layers, tower: TextTower, pack: Pack, sizes: tuple[int, int]) -> Tensor:
        out = x.new_empty(*x.shape[:-3], len(pack.end_K), tower.params["text_projection"].shape[1])
        into_NKC = out.view(-1, *out.shape[-2:])
        for piece, own, (n, _), prompts in _pieces(x, pack, sizes):
            into_NKC[n, prompts] = layers(tower, piece, own)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, *ctx.given = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x,), (layers, tower, pack, sizes) = ctx.saved_tensors, ctx.given
        to_x = x.new_empty(x.shape)
        into_NGTD, grad_NKC = to_x.view(-1, *x.shape[-3:]), grad.reshape(-1, *grad.shape[-2:])
        for piece, own, (n, g), prompts in _pieces(x, pack, sizes):
            with torch.enable_grad():
                leaf = piece.detach().requires_grad_()
                features = layers(tower, leaf, own)
            (into_NGTD[n, g],) = torch.autograd.grad(features, leaf, grad_NKC[n, prompts])
        return to_x, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, *given: Any) -> tuple[Tensor, int]:
        assert in_dims[0] is not None, "only the embeddings are mapped over"
        features: Tensor = _Pieces.apply(x.movedim(in_dims[0], 0), *given)
        return features, 0


def _pieces(
    x: Tensor, pack: Pack, sizes: tuple[int, int]
) -> Iterator[tuple[Tensor, Pack, tuple[slice, slice], slice]]:
    """Yield each piece (n, g, T, D), its pack, its place in (N, G), and its slice of the sorted prompts."""
    x_NGTD = x.reshape(-1, *x.shape[-3:])
    N, G = x_NGTD.shape[:2]
    groups, rows = sizes
    for n in range(0, N, groups):
        for g in range(0, G, rows):
            at = slice(n, n + groups), slice(g, g + rows)
            prompts = slice(sum(pack.filled[:g]), sum(pack.filled[: g + rows]))
            yield x_NGTD[at], part(pack, g, g + rows), at, prompts
