"""The optimiser alone: one stacked update of twelve pooling heads against torch.optim, and bytes a second."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.interface import Params
from bench.plan import cost
from bench.recipe import OptimSpec
from bench.train import optim, rng
from tests.benchmarks.ratios_timing import Row, interleaved, row

R = 12
# numbers that a pass moves for one parameter: reads weight, gradient, both moments; writes all but gradient
TRAFFIC = 7


def pool_shapes(D: int, C: int, T: int = 50) -> dict[str, tuple[int, ...]]:
    """The tensors of an attention pool of width D; RN50's has D = 2048, C = 1024."""
    shapes = {f"{p}_proj.weight": (C if p == "c" else D, D) for p in "qkvc"}
    return (
        shapes
        | {f"{p}_proj.bias": (C if p == "c" else D,) for p in "qkvc"}
        | {"positional_embedding": (T, D)}
    )


def made(shapes: dict[str, tuple[int, ...]], device: torch.device, part: str) -> Params:
    """Repeatable noise (R, ...) of weights' scale, none below 0.01, so that no second moment is flushed."""
    noise = {name: torch.randn(R, *s, generator=rng.generator(0, part, name)) for name, s in shapes.items()}
    return {name: x.sign().mul_(0.01).add_(x, alpha=0.02).to(device) for name, x in noise.items()}


def rows(device: torch.device, roof: cost.Device, repeats: int, steps: int, width: int) -> list[Row]:
    """Each variant makes ``steps`` updates a round, on its own weights and moments and the same gradients."""
    shapes = pool_shapes(width, width // 2)
    grads = made(shapes, device, "gradients")
    rates, decays = [1e-4 * (r + 1) for r in range(R)], [1e-3] * R
    lr_R = torch.tensor(rates, dtype=torch.float64, device=device)

    def stacked(spec: OptimSpec) -> tuple[Params, Callable[[], None]]:
        params = made(shapes, device, "weights")
        optimiser = optim.make(spec, params, decays)
        return params, lambda: optimiser.step(grads, lr_R)

    def published(foreach: bool | None) -> tuple[Params, Callable[[], None]]:
        """One optimiser for each replica; with ``foreach`` one for all, a group for each."""
        params = made(shapes, device, "weights")
        leaves = [[p[r].requires_grad_() for p in params.values()] for r in range(R)]
        for r in range(R):
            for leaf, g in zip(leaves[r], grads.values(), strict=True):
                leaf.grad = g[r]
        groups = [
            {"params": x, "lr": a, "weight_decay": d} for x, a, d in zip(leaves, rates, decays, strict=True)
        ]
        sets = [groups] if foreach else [[g] for g in groups]
        optimisers = [torch.optim.AdamW(s, foreach=foreach) for s in sets]

        def step() -> None:
            for o in optimisers:
                o.step()

        return params, step

    made_by = {
        "ours": stacked(OptimSpec("adamw")),
        "one torch.optim.AdamW for each replica": published(None),
        "torch.optim.AdamW(foreach=True), a group for each replica": published(True),
        "stacked list kernels, as fp16 moments need": stacked(OptimSpec("adamw", half_state=True)),
    }

    def several(step: Callable[[], None]) -> Callable[[], None]:
        def call() -> None:
            for _ in range(steps):
                step()

        return call

    times = interleaved({name: several(step) for name, (_, step) in made_by.items()}, repeats)
    for name, (params, _) in made_by.items():
        for key, p in params.items():
            torch.testing.assert_close(
                p, made_by["ours"][0][key], rtol=1e-4, atol=1e-4, msg=f"{name}: {key} differs"
            )
    numbers = sum(g.numel() for g in grads.values())
    moved = 4.0 * TRAFFIC * numbers * steps
    floor = roof.seconds(cost.Cost(bytes=moved))
    rows = []
    for name in list(made_by)[1:]:
        least = None if name.startswith("stacked") else 1.0
        r = row(
            f"AdamW of {R} pools", name, times["ours"], times[name], True, None, "", floor=floor, least=least
        )
        speed = moved / r.ours_s
        note = (
            f"{numbers / 1e6:.3g} million numbers, "
            f"{speed / 1e9:.3g} GB/s, {speed / roof.bytes:.0%} of what copying reaches"
        )
        more = {
            "bytes_per_second": speed,
            "roofline_bytes_per_second": roof.bytes,
            "parameters": numbers,
            "steps": steps,
        }
        rows.append(Row(**{**vars(r), "note": note, "more": more}))
    return rows
