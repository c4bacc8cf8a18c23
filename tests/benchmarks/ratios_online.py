"""Plain training loops, written as published repositories run them; the engine is measured against them.

Every step sends its images through the frozen encoder again (open_clip's own modules, nothing cached, nothing
folded), one run per grid point, torch.optim, validation through the whole model. Images wait in memory,
decoded and normalised, which flatters these loops.

Legend: N images, B batch, K classes, C embedding width, P prompts, S side, D tower width, L tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Images:
    """Normalised images (N, 3, S, S) of every view, and their classes (N,)."""

    views: dict[str, Tensor]
    y_N: Tensor

    def pool(self, names: Sequence[str]) -> Tensor:
        """All rows of some views, view-major (V * N, 3, S, S)."""
        return torch.cat([self.views[name] for name in names])


@dataclass(frozen=True)
class Run:
    """What a grid point of a plain loop needs: each step's rate and positions, decay, when to validate."""

    rates: Sequence[float]
    wd: float
    positions: Sequence[dict[str, np.ndarray]]
    check: Callable[[int], bool]


class Tail(nn.Module):
    """What a ViT tower does last, on all tokens: last block, ``ln_post``, the first token's projection."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.block, self.ln_post = visual.transformer.resblocks[-1], visual.ln_post
        self.proj = visual.proj

    def forward(self, x_BTD: Tensor) -> Tensor:
        out: Tensor = self.ln_post(self.block(x_BTD))[:, 0] @ self.proj
        return out


def pooling(visual: Any) -> nn.Module:
    """A copy of the tower's pooling head as open_clip's own modules: the attention pool, or a ViT's tail."""
    return copy.deepcopy(visual.attnpool if hasattr(visual, "attnpool") else Tail(visual))


def trunk(visual: Any, x_BCHW: Tensor) -> Tensor:
    """A tower up to its pooling head: (B, D, h, w) of a ResNet, (B, T, D) of a ViT."""
    if hasattr(visual, "attnpool"):
        out: Tensor = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(x_BCHW)))))
        return out
    x_BTD: Tensor = visual._embeds(x_BCHW)
    for block in visual.transformer.resblocks[:-1]:
        x_BTD = block(x_BTD)
    return x_BTD


def loop(
    run: Run,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    loss_of: Callable[[int], Tensor],
    logits_of: Callable[[Tensor], Tensor],
    val: Images,
) -> list[float]:
    """One grid point: returns the validation accuracy at every check; each step asks ``run.check``."""
    curve, best, kept = [], -1.0, None
    for step, rate in enumerate(run.rates):
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = loss_of(step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if run.check(step):
            with torch.no_grad():
                hits = [
                    (logits_of(x).argmax(-1) == y).sum()
                    for x, y in zip(val.views["eval"].split(32), val.y_N.split(32), strict=True)
                ]
            curve.append(float(sum(hits)) / len(val.y_N))
            if curve[-1] > best:
                best, kept = curve[-1], copy.deepcopy(module.state_dict())
    assert kept is not None or not curve
    return curve


def cosine(f_BC: Tensor, W_KC: Tensor, scale: float) -> Tensor:
    return scale * F.normalize(f_BC, dim=-1) @ W_KC.T


def safe(
    model: Any,
    images: Images,
    views: Sequence[str],
    val: Images,
    runs: Iterator[Run],
    W_KC: Tensor,
    scale: float,
    factor: float,
) -> list[list[float]]:
    """The attention pool fine-tuned on online trunk features."""
    x, y = images.pool(views), images.y_N
    curves = []
    for run in runs:
        head = pooling(model.visual).requires_grad_(True)
        optimiser = torch.optim.AdamW(head.parameters(), weight_decay=run.wd)

        def loss_of(step: int, head: nn.Module = head, run: Run = run) -> Tensor:
            index = torch.from_numpy(run.positions[step]["image"])
            with torch.no_grad():
                t = trunk(model.visual, x[index])
            return F.cross_entropy(cosine(head(t), W_KC, factor * scale), y[index % len(y)])

        def logits_of(x_BCHW: Tensor, head: nn.Module = head) -> Tensor:
            return cosine(head(trunk(model.visual, x_BCHW)), W_KC, scale)

        curves.append(loop(run, head, optimiser, loss_of, logits_of, val))
    return curves


def cross_modal(
    model: Any,
    images: Images,
    views: Sequence[str],
    val: Images,
    runs: Iterator[Run],
    W_KC: Tensor,
    scale: float,
    raw_PC: Tensor,
    class_of_P: Tensor,
    partial: bool,
    factor: float = 1.0,
) -> list[list[float]]:
    """A head on images and on prompts, encoded once; ``partial`` also trains the attention pool."""
    x, y = images.pool(views), images.y_N
    curves = []
    for run in runs:
        pool = pooling(model.visual).requires_grad_(partial)
        rows = nn.Linear(W_KC.shape[1], W_KC.shape[0], bias=False, device=W_KC.device)
        rows.weight.data.copy_(W_KC)
        both = nn.ModuleList([pool, rows])
        optimiser = torch.optim.AdamW([p for p in both.parameters() if p.requires_grad], weight_decay=run.wd)

        def embed(x_BCHW: Tensor, pool: nn.Module = pool) -> Tensor:
            with torch.no_grad():
                t = trunk(model.visual, x_BCHW)
            out: Tensor = pool(t)
            return out

        def loss_of(
            step: int, rows: nn.Module = rows, run: Run = run, embed: Callable[[Tensor], Tensor] = embed
        ) -> Tensor:
            index, text = (torch.from_numpy(run.positions[step][s]) for s in ("image", "text"))
            z = torch.cat([embed(x[index]), raw_PC[text]])
            logits = factor * scale * rows(F.normalize(z, dim=-1))
            return F.cross_entropy(logits, torch.cat([y[index % len(y)], class_of_P[text]]))

        def logits_of(
            x_BCHW: Tensor, rows: nn.Module = rows, embed: Callable[[Tensor], Tensor] = embed
        ) -> Tensor:
            return factor * scale * rows(F.normalize(embed(x_BCHW), dim=-1))

        curves.append(loop(run, both, optimiser, loss_of, logits_of, val))
    return curves


def tip_adapter_f(
    model: Any,
    images: Images,
    views: Sequence[str],
    val: Images,
    runs: Iterator[Run],
    W_KC: Tensor,
    scale: float,
    key_views: Sequence[str],
    alpha: float,
    beta: float,
    eps: float,
) -> list[list[float]]:
    """The cache's keys trained; the cache itself is built from online features too."""
    y, K = images.y_N, len(W_KC)
    curves = []
    for run in runs:
        with torch.no_grad():
            means = [
                torch.cat([model.encode_image(part) for part in images.views[v].split(32)]) for v in key_views
            ]
        keys = F.normalize(torch.stack(means).mean(0), dim=-1)
        onehot = F.one_hot(y, K).float()
        adapter = nn.Linear(keys.shape[1], keys.shape[0], bias=False, device=keys.device)
        adapter.weight.data.copy_(keys)
        optimiser = torch.optim.AdamW(adapter.parameters(), weight_decay=run.wd, eps=eps)
        x = images.pool(views)

        def logits_of(x_BCHW: Tensor, adapter: nn.Module = adapter, onehot: Tensor = onehot) -> Tensor:
            with torch.no_grad():
                f = F.normalize(model.encode_image(x_BCHW), dim=-1)
            cached = ((-1) * (beta - beta * adapter(f))).exp() @ onehot
            return scale * f @ W_KC.T + cached * alpha

        def loss_of(
            step: int, run: Run = run, x: Tensor = x, logits_of: Callable[[Tensor], Tensor] = logits_of
        ) -> Tensor:
            index = torch.from_numpy(run.positions[step]["image"])
            return F.cross_entropy(logits_of(x[index]), y[index % len(y)])

        curves.append(loop(run, adapter, optimiser, loss_of, logits_of, val))
    return curves


def encode_text(model: Any, embedded_PLD: Tensor, eot_P: Tensor) -> Tensor:
    """open_clip's own text tower on embedded prompts of full context length."""
    x = model.transformer(embedded_PLD + model.positional_embedding, attn_mask=model.attn_mask)
    out: Tensor = model.ln_final(x)[torch.arange(len(x), device=x.device), eot_P] @ model.text_projection
    return out


def coop(
    model: Any,
    images: Images,
    views: Sequence[str],
    val: Images,
    runs: Iterator[Run],
    scale: float,
    names: Sequence[str],
    words: str,
    tokenize: Callable[[list[str]], Tensor],
) -> list[list[float]]:
    """One context learned through the text tower at all 77 positions."""
    x, y = images.pool(views), images.y_N
    M = len(words.split())
    ids = tokenize([f"{words} {name}." for name in names]).to(model.token_embedding.weight.device)
    with torch.no_grad():
        table = model.token_embedding(ids)
    curves = []
    for run in runs:
        learned = nn.ParameterList([table[0, 1 : 1 + M].clone()])
        optimiser = torch.optim.SGD(learned.parameters(), lr=1.0, momentum=0.9, weight_decay=run.wd)

        def logits_of(x_BCHW: Tensor, learned: Any = learned) -> Tensor:
            with torch.no_grad():
                f = F.normalize(model.encode_image(x_BCHW), dim=-1)
            context = learned[0].expand(len(names), -1, -1)
            prompts = torch.cat([table[:, :1], context, table[:, 1 + M :]], 1)
            return scale * f @ F.normalize(encode_text(model, prompts, ids.argmax(-1)), dim=-1).T

        def loss_of(step: int, run: Run = run, logits_of: Callable[[Tensor], Tensor] = logits_of) -> Tensor:
            index = torch.from_numpy(run.positions[step]["image"])
            return F.cross_entropy(logits_of(x[index]), y[index % len(y)])

        curves.append(loop(run, learned, optimiser, loss_of, logits_of, val))
    return curves
