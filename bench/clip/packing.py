"""Place the tokens of prompts with a common start, so that many prompts share a row of the text tower.

Legend: K prompts, L positions, D tower width; G rows of T packed tokens, P common ones at the start of each.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pack:
    """The places of the tokens of K prompts in G rows of T.

    ``shared`` is P. ``filled`` is the number of prompts in each row. ``source_GT`` says which token stands at
    a place, as its index in the prompts laid end to end (K L,). ``position_GT`` is the token's position in
    its prompt. ``end_K`` is the place of every end token among the G T places. ``mask_G1TT`` is 0 if the
    first token sees the second, else minus infinity. Places that stay empty hold the first start token, which
    no token sees.
    """

    shared: int
    filled: tuple[int, ...]
    source_GT: Tensor
    position_GT: Tensor
    end_K: Tensor
    mask_G1TT: Tensor


def common(keys_KL: Tensor, eot_K: Tensor) -> int:
    """Return P: how many leading positions are the same in all rows.

    Positions from the first end token on do not count.
    """
    same_L = (keys_KL == keys_KL[:1]).all(0)[: int(eot_K.min())]
    return int(same_L.long().cumprod(0).sum())


def pack_of(eot_K: Tensor, length: int, shared: int, like: Tensor) -> Pack:
    """Make the pack of K prompts of ``length`` positions with end tokens at ``eot_K``.

    The first ``shared`` embeddings of all prompts must be equal. ``like`` is a tensor (..., D) of the
    prompts' precision and device.
    """
    assert 0 <= shared <= int(eot_K.min()), "an end token belongs to its own prompt"
    own = (eot_K + 1 - shared).tolist()
    rows = _rows(own, shared, like.shape[-1])
    T = shared + max(sum(own[k] for k in row) for row in rows)
    source_GT, position_GT = torch.zeros(2, len(rows), T, dtype=torch.long)
    prompt_GT = torch.full((len(rows), T), -1)  # the prompt at each place; -1 is empty, -2 the common start
    end_K = torch.zeros_like(eot_K, device="cpu")
    start_P = torch.arange(shared)
    for g, row in enumerate(rows):
        source_GT[g, :shared] = position_GT[g, :shared] = start_P
        prompt_GT[g, :shared] = -2
        at = shared
        for k in row:
            places = slice(at, at + own[k])
            position_GT[g, places] = shared + torch.arange(own[k])
            source_GT[g, places] = k * length + position_GT[g, places]
            prompt_GT[g, places] = k
            at += own[k]
            end_K[k] = g * T + at - 1
    same = prompt_GT[:, :, None] == prompt_GT[:, None]
    seen = (same | (prompt_GT[:, None] == -2)) & (position_GT[:, :, None] >= position_GT[:, None])
    mask_G1TT = torch.zeros(seen.shape, dtype=like.dtype).masked_fill(~seen, float("-inf"))[:, None]
    return Pack(
        shared,
        tuple(map(len, rows)),
        *(x.to(like.device) for x in (source_GT, position_GT, end_K, mask_G1TT)),
    )


def _rows(own: list[int], P: int, D: int) -> list[list[int]]:
    """Divide prompts with ``own`` tokens each into the rows that cost least.

    In a block a token costs 12 D^2 multiply-adds and a pair of tokens 2 D. So with n tokens behind the start,
    each of them bears 12 D^2 P / n of the start and about 2 D n of pairs; the sum is least at n = (6 D
    P)^0.5. Several numbers of rows around that are tried, because empty places cost too.
    """
    aim = sum(own) / (6.0 * D * max(P, 1)) ** 0.5
    counts = {min(len(own), max(1, round(aim * factor))) for factor in (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)}
    every = [_spread(own, n) for n in sorted(counts | {len(own)})]

    def cost(rows: list[list[int]]) -> float:
        T = P + max(sum(own[k] for k in row) for row in rows)
        return len(rows) * T * (6.0 * D + T)

    return min(every, key=cost)


def _spread(own: list[int], n_rows: int) -> list[list[int]]:
    """Divide prompts into rows of nearly the same length.

    The longest prompts come first, and each goes to the row with most free places.
    """
    rows: list[list[int]] = [[] for _ in range(n_rows)]
    free = [(0, g) for g in range(n_rows)]
    for k in sorted(range(len(own)), key=lambda k: -own[k]):
        filled, g = free[0]
        rows[g].append(k)
        heapq.heapreplace(free, (filled + own[k], g))
    return rows


def part(pack: Pack, first: int, end: int) -> Pack:
    """Return the pack of rows ``first`` to ``end`` and of the prompts in them. ``end_K`` must be sorted."""
    T = pack.source_GT.shape[1]
    rows, prompts = slice(first, end), slice(sum(pack.filled[:first]), sum(pack.filled[:end]))
    return replace(
        pack,
        source_GT=pack.source_GT[rows],
        position_GT=pack.position_GT[rows],
        mask_G1TT=pack.mask_G1TT[rows],
        end_K=pack.end_K[prompts] - first * T,
        filled=pack.filled[rows],
    )
