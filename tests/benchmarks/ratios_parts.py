"""Ratios of single parts at true size: folded heads, learned prompts' text tower, inference-time search.

Weights are random: they do not change how long anything takes. On a GPU heads and text towers are recorded as
CUDA graphs on both sides, as they are where they train; how they compare launched one operation after the
other stands in ``launched_ratio``.

Legend: B batch, T tokens, D tower width, L tokens of text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import AttentionPool2d
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.clip import heads
from bench.interface import POOLED, points
from bench.methods.coop import lay_out
from bench.methods.tip_adapter import search_axis
from bench.train import rng, select
from tests.benchmarks import ratios_online
from tests.benchmarks.ratios_timing import Row, interleaved, recorded, row


def _normal(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.copy_(torch.randn(p.shape, generator=rng.generator(0, "weights", i)) * p.shape[-1] ** -0.5)


def original_head(
    family: str, device: torch.device
) -> tuple[torch.nn.Module, heads.PoolingHead, Callable[[Tensor], Tensor], Tensor]:
    """open_clip's module at true size, our head with its weights, its map from dense tokens, a batch of 8."""
    g = rng.generator(0, "tokens")
    if family == "rn":
        pool = AttentionPool2d(7, 2048, 32, 1024)
        _normal(pool)
        pool.to(device)
        holder = torch.nn.Module()
        holder.attnpool = pool
        x = torch.randn(8, 49, 2048, generator=g).relu().to(device)
        return pool, heads.of_tower(holder, "rn"), lambda x: pool(x.transpose(1, 2).unflatten(2, (7, 7))), x
    vit = VisionTransformer(224, 16, 768, 1, 12, 4.0, output_dim=512, act_layer=QuickGELU).eval()
    _normal(vit.transformer)
    vit.to(device)
    tail = torch.nn.Module()
    tail.transformer, tail.ln_post, tail.proj = vit.transformer, vit.ln_post, vit.proj
    x = torch.randn(8, 197, 768, generator=g).to(device)
    return tail, heads.of_tower(vit, "vit"), lambda x: vit._pool(vit.transformer(x))[0] @ vit.proj, x


def flops(fn: Callable[[], Any]) -> int:
    """Floating-point operations of matrix products; attention is written out, so that no kernel is missed."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        fn()
    return counter.get_total_flops()


def timed(
    variants: dict[str, Callable[[], Any]], device: torch.device, repeats: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of every variant in every round, as it trains, and on a GPU those of plain launches too."""
    if device.type != "cuda":
        return interleaved(variants, repeats), {}
    launched = interleaved(variants, repeats)
    return interleaved({name: recorded(fn, device) for name, fn in variants.items()}, repeats), launched


def beside(launched: dict[str, list[float]], theirs: str) -> dict[str, float]:
    """The ratio of plain launches, where there were any."""
    return (
        {"launched_ratio": row("", "", launched["ours"], launched[theirs], None, None).ratio}
        if launched
        else {}
    )


def head_rows(device: torch.device, repeats: int) -> list[Row]:
    """Forward and backward of a batch of 8 through the folded head against open_clip's module."""
    rows = []
    for family, title, least in (("rn", "RN50 head, 50x2048", 3.0), ("vit", "ViT-B/16 head, 197x768", 3.0)):
        module, head, original, x = original_head(family, device)
        params = {name: p.requires_grad_() for name, p in head.copy().items()}
        weights = [p for p in module.parameters() if p.requires_grad]

        def folded(head: heads.PoolingHead = head, params: dict[str, Tensor] = params, x: Tensor = x) -> Any:
            return torch.autograd.grad(head(params, x).square().sum(), list(params.values()))

        def plain(original: Any = original, weights: list[Tensor] = weights, x: Tensor = x) -> Any:
            return torch.autograd.grad(original(x).square().sum(), weights, allow_unused=True)

        with torch.no_grad():
            torch.testing.assert_close(head(params, x), original(x), rtol=1e-3, atol=1e-3)
        times, launched = timed({"ours": folded, "plain": plain}, device, repeats)
        mine, theirs = flops(folded), flops(plain)
        more = beside(launched, "plain") | {
            "multiply_adds": mine // 2,
            "baseline_multiply_adds": theirs // 2,
            "multiply_adds_ratio": theirs / mine,
        }
        note = f"forward + backward, batch 8; {theirs / mine:.1f}x fewer multiply-adds"
        rows.append(
            row(
                title,
                "open_clip module",
                times["ours"],
                times["plain"],
                True,
                False,
                note,
                least=least,
                more=more,
            )
        )
    return rows


def text_rows(model: Any, tower: Any, title: str, K: int, M: int, repeats: int) -> list[Row]:
    """One context of M vectors before K names of different lengths, forward and backward to the context.

    What prompts share is computed once, against every prompt cut at the last end token, and against all 77
    positions.
    """
    prompts = lay_out(tower, [" ".join(["thing"] * (1 + i % 4)) + f" number {i}" for i in range(K)], M)
    L, positions = prompts.base_KLD.shape[1], tower.context_length
    drawn = 0.02 * torch.randn(M, prompts.base_KLD.shape[2], generator=rng.generator(0, "context"))
    ctx = drawn.to(prompts.base_KLD.device).requires_grad_()

    def cut(ctx: Tensor) -> Tensor:
        return tower.encode(prompts.fill(ctx), prompts.eot_K)

    def whole(ctx: Tensor) -> Tensor:
        return ratios_online.encode_text(
            model, F.pad(prompts.fill(ctx), (0, 0, 0, positions - L)), prompts.eot_K
        )

    def both(fn: Callable[[Tensor], Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(fn(ctx).square().sum(), ctx)

    variants = {"ours": both(lambda ctx: prompts.encode(tower, ctx)), "cut": both(cut), "whole": both(whole)}
    with torch.no_grad():
        for theirs in (cut, whole):
            torch.testing.assert_close(prompts.encode(tower, ctx), theirs(ctx), rtol=1e-3, atol=1e-3)
    times, launched = timed(variants, ctx.device, repeats)
    counts = {name: flops(fn) for name, fn in variants.items()}
    rows = []
    for name, baseline, least in (
        ("cut", f"our text tower, every prompt at {L} positions", 1.0),
        ("whole", f"open_clip text tower, {positions} positions", 2.0),
    ):
        fewer = counts[name] / counts["ours"]
        size = f"{K} prompts, {M} context vectors, {prompts.alike.source_GT.numel()} tokens computed"
        note = f"{size}, forward + backward; {fewer:.1f}x fewer multiply-adds"
        more = beside(launched, name) | {
            "multiply_adds": counts["ours"] // 2,
            "baseline_multiply_adds": counts[name] // 2,
            "multiply_adds_ratio": fewer,
        }
        rows.append(
            row(title, baseline, times["ours"], times[name], None, None, note, least=least, more=more)
        )
    return rows


def search_rows(
    method: Any,
    device: torch.device,
    n_val: int,
    N: int,
    K: int,
    steps: tuple[int, int],
    repeats: int,
    C: int = 1024,
) -> list[Row]:
    """Tip-Adapter's grid against a double loop, as published (affinity in the loop) and with it taken out."""
    g = rng.generator(0, "search")
    centre_KC = torch.randn(K, C, generator=g)
    y_N, y_n = torch.arange(N) % K, torch.arange(n_val) % K
    keys_NC = F.normalize(centre_KC[y_N] + 2.0 * torch.randn(N, C, generator=g), dim=-1)
    f_nC = centre_KC[y_n] + 2.0 * torch.randn(n_val, C, generator=g)
    W_KC = F.normalize(centre_KC + 4.0 * torch.randn(K, C, generator=g), dim=-1)
    y_N, y_n, keys_NC, f_nC, W_KC = (x.to(device) for x in (y_N, y_n, keys_NC, f_nC, W_KC))
    consts = {"W_KC": W_KC, "scale": 100.0, "keys_NC": keys_NC, "onehot_NK": F.one_hot(y_N, K).float()}
    axes = {"beta": search_axis(0.1, 7.0, steps[0]), "alpha": search_axis(0.1, 3.0, steps[1])}
    grid, val = points(axes), select.Labelled({POOLED: f_nC}, y_n)
    chosen: dict[str, Any] = {}

    def ours() -> None:
        chosen["ours"] = select.search(method, consts, {}, {}, grid, val)

    def double_loop(inside: bool) -> None:
        q_nC = F.normalize(f_nC, dim=-1)
        text_nK = 100.0 * q_nC @ W_KC.T
        affinity = q_nC @ keys_NC.T
        best, at = -1, {}
        for beta in axes["beta"]:
            for alpha in axes["alpha"]:
                if inside:
                    affinity = q_nC @ keys_NC.T
                cached = ((-1) * (beta - beta * affinity)).exp() @ consts["onehot_NK"]
                hits = int(((text_nK + cached * alpha).argmax(-1) == y_n).sum())
                if hits > best:
                    best, at = hits, {"beta": beta, "alpha": alpha}
        chosen[f"loop {inside}"] = at, best / n_val

    ours()
    published = interleaved({"ours": ours, "loop": lambda: double_loop(True)}, repeats, warm=False)
    hoisted = interleaved({"ours": ours, "loop": lambda: double_loop(False)}, 3 * repeats, warm=False)
    same = chosen["ours"] == chosen["loop True"] == chosen["loop False"]
    assert same, f"the search and the loops chose different points: {chosen}"
    title = f"search of {len(grid)} points"
    note = f"{n_val} validation images, {N} keys, {K} classes; same point chosen"
    inside, outside = "double loop, affinity inside (published)", "double loop, affinity outside"
    return [
        row(title, inside, published["ours"], published["loop"], True, None, note, least=20.0),
        row(title, outside, hoisted["ours"], hoisted["loop"], True, None, note, least=20.0),
    ]
