"""Training steps alone at true size: replicas together, one alone, the plain loop that encodes every step.

A whole fit takes a plain loop hours at this size, so seconds are those of one step and one grid point, in
steady state: allocation, warm-up and, on a GPU, recording have gone before. Validation is left out on both
sides, which flatters the plain loop. Encoding, which ours does once for all grid points, stands beside the
ratio. Weights and images are noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any

import open_clip
import torch
from torch import Tensor

from bench.clip import backbone as backbones
from bench.interface import DENSE, LR, POOLED, Method, Params, Recipe, Task, Values, points
from bench.plan import cost
from bench.train import loop, rng, waves
from bench.train.keep import Trained
from bench.train.loop import Pool
from tests.benchmarks import projection, ratios_fits
from tests.benchmarks.ratios_device import Effort, goals
from tests.benchmarks.ratios_fits import Case, Fit
from tests.benchmarks.ratios_timing import Row, clock, now, row, told


def random_backbone(arch: str, device: torch.device) -> backbones.Backbone:
    """A backbone of an architecture's true size, with random weights."""
    model = open_clip.create_model(arch + "-quickgelu").eval().requires_grad_(False)
    return backbones.Backbone(projection.backbone(arch), model, device, torch.float32)


@dataclass(frozen=True)
class Steps:
    """All that the training loop reads, but the grid points. ``model`` decides how many threads are used."""

    method: Method
    recipe: Recipe
    task: Task
    consts: Mapping[str, Any]
    pools: Mapping[str, Pool]
    model: Any

    def start(self, values: Values) -> Params:
        """A replica's first tensors."""
        return self.method.init(
            self.task, self.consts, {**self.task.settings, **values}, rng.generator(1, "init")
        )

    def seconds(self, values: Sequence[Values], n: int) -> float:
        """Seconds of the last ``n`` of 2 n + 1 steps of replicas at ``values``; their checks keep nothing."""
        return self.trained(values, n)[0]

    def trained(
        self, values: Sequence[Values], n: int, at: Callable[[int], None] = lambda check: None
    ) -> tuple[float, Trained]:
        """As ``seconds``, and what the engine says of its steps.

        ``at`` is called with 0, 1 and 2 after steps 0, n and 2 n; what it takes is not counted.
        """
        marks: list[float] = []
        came: list[float] = []

        def score(params: Params, values: Sequence[Values]) -> tuple[Tensor, Tensor]:
            came.append(now())
            at(len(marks))
            marks.append(now())
            return (torch.zeros(len(values)),) * 2

        recipe = replace(
            self.recipe, steps=2 * n + 1, epochs=None, check_every=n, select="best", patience=None
        )
        settings = {**self.task.settings, **points(self.recipe.static)[0]}
        with ratios_fits.threads(self.model):
            start = [self.start(v) for v in values]
            made = loop.train(self.method, recipe, self.consts, start, values, settings, self.pools, 1, score)
        assert len(marks) == 3, "checked after steps 0, n and 2 n"
        return came[2] - marks[1], made

    def values(self, R: int) -> list[dict[str, Any]]:
        """R grid points that differ in their rates."""
        first = {**points(self.recipe.grid)[0], **points(self.recipe.static)[0]}
        return [{**first, LR: first[LR] * (1 + r / R)} for r in range(R)]

    def working_set(self, R: int) -> int:
        """Bytes that a step of R replicas goes over: weights, gradients and moments."""
        start = self.start(self.values(1)[0])
        size = sum(p.numel() * p.element_size() for p in start.values())
        # less the best copy and the start
        return R * (waves.bytes_per_replica(start, self.recipe) - 2 * size)


def of_fit(fit: Fit, support: Mapping[tuple[str, str], Tensor]) -> Steps:
    """The steps of a fit on encoded features. A recipe with several batch sizes is taken at its first."""
    task, pools = fit.pools(fit.recipe, support)
    return Steps(fit.method, fit.recipe, task, fit.method.prepare(task), pools, fit.backbone.model)


def plain_seconds(fit: Fit, case: Case, n: int) -> float:
    """Seconds of ``n`` steps of the plain loop, after one that is not counted.

    A schedule that has fewer steps (Tip-Adapter-F's 20 epochs of one) starts again: a step costs the same.
    """
    marks: list[float] = []

    def mark(step: int) -> bool:
        marks.append(now())
        return False  # nothing is validated

    run = next(fit.runs())
    rates, positions = (list(islice(cycle(x), n + 1)) for x in (run.rates, run.positions))
    run = replace(run, rates=rates, positions=positions, check=mark)
    case.plain(fit, iter([run]))
    assert len(marks) == n + 1
    return marks[-1] - marks[0]


@dataclass(frozen=True)
class Size:
    """A case at true size: the architecture and images of each class, on a processor."""

    case: Case
    arch: str
    shots: int


_WIDE = {"lr": (1e-4, 1e-5, 1e-6, 1e-7), "wd": (0.0, 1e-3, 1e-5)}
_MANY = {"lr": (1e-5, 1e-6, 1e-7), "wd": (0.0, 1e-3, 1e-5)}


def sizes(wide: bool) -> tuple[Size, ...]:
    """What is measured; ``wide``: with the published grids, else with three grid points.

    Tip-Adapter-F trains one point on full batches; one view of each image is enough to time its steps.
    """
    safe = Case("SAFE", "safe", DENSE, _WIDE if wide else {}, ratios_fits.plain_safe)
    partial = Case(
        "Cross-Modal, partial", "cross-modal", DENSE, _MANY if wide else {}, ratios_fits.plain_cross_modal
    )
    tip = Case("Tip-Adapter-F", "tip-adapter-f", POOLED, {"key_views": 1}, ratios_fits.plain_tip)
    return Size(safe, "RN50", 4), Size(partial, "RN50", 4), Size(tip, "RN50", 4), Size(safe, "ViT-B-16", 1)


def rows(
    tower: backbones.Backbone, case: Case, effort: Effort, roof: cost.Device, K: int, shots: int
) -> list[Row]:
    """A step of one grid point: trained with the others against alone, and against the plain loop's."""
    n, name = effort.engine_steps, f"{case.title}, {tower.spec.name}, a step"
    fit = ratios_fits.make(case, tower, K, shots, ratios_fits.shrink(case, 2 * n + 1))
    tower.encode_images(next(iter(fit.val.views.values()))[:2])  # what is made on first use is not encoding
    kept: list[Any] = []
    encode_s = clock(lambda: kept.append(fit.features()))
    steps = of_fit(fit, kept[0][0])
    values = [{**p, **points(fit.recipe.static)[0]} for p in points(fit.recipe.grid)]
    R = len(values)
    variants = {
        "together": lambda: steps.seconds(values, n) / (n * R),
        "alone": lambda: steps.seconds(values[:1], n) / n,
        "plain": lambda: plain_seconds(fit, case, effort.plain_steps) / effort.plain_steps,
    }
    if R == 1:
        del variants["alone"]
    times = told(variants, effort.repeats)
    floor = roof.seconds(cost.step(ratios_fits.planned(fit)))
    together, online = goals(tower.device, R)
    size = f"{R} grid point{'s' if R > 1 else ''}, batch {batch(fit)}, K={K}, {shots} shots"
    ours, one = times["together"], "sequential, one replica at a time"
    alone = (
        [row(name, one, ours, times["alone"], True, True, size, floor=floor, least=together)] if R > 1 else []
    )
    measured = row(
        name, "plain online loop", ours, times["plain"], False, False, "", floor=floor, least=online
    )
    images = sum(len(x) for x in kept[0][0].values()) + len(fit.val.y_N)
    saved = measured.baseline_s - measured.ours_s
    even = encode_s / (R * saved) if saved > 0 else None
    after = f"pays off after {even:.1f} steps" if even is not None else "never pays off"
    more = {"encode_s": encode_s, "images_encoded": images, "break_even_steps": even}
    return [
        *alone,
        replace(
            measured,
            note=f"{size}; encoding not counted: {images} images once in {encode_s:.2g} s, which {after}",
            more=more,
        ),
    ]


def batch(fit: Fit) -> int:
    """Rows of one step, all streams together."""
    run = next(fit.runs())
    return sum(len(at) for at in run.positions[0].values())
