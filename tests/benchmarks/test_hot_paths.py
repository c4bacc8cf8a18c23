"""Seconds of what a run spends its time on, by pytest-benchmark.

``pytest tests/benchmarks --benchmark-only`` measures them. Sizes are those of a paper's run where one call
stays well under a second.

Legend: B batch, T tokens, D tower width, C embedding width, K classes, N support images, R replicas.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pytest_benchmark")
import torch

from bench.clip import backbone, heads
from bench.data import catalog, fewshot
from bench.features.encode import Wanted, encode
from bench.features.store import FeatureStore
from bench.interface import DENSE, LR, WD, Batch, Rows
from bench.plan import planner
from bench.plan.request import Request
from bench.registry import builtin
from bench.report import tables
from bench.report.frame import load_results
from bench.train import loop, optim, rng
from tests.methods.support import StandIn, make_task
from tests.report import made

pytestmark = pytest.mark.benchmark(min_rounds=3, max_time=0.3, warmup=True, warmup_iterations=1)

B, T, D, C = 8, 49, 2048, 1024


@pytest.fixture(scope="module")
def pocket() -> backbone.Backbone:
    return backbone.load(backbone.resolve("pocket-rn"))


def normal(*shape: int, name: str = "") -> torch.Tensor:
    """Repeatable noise of the scale that weights have."""
    return torch.randn(shape, generator=rng.generator(0, "benchmark", name, *shape)) * shape[-1] ** -0.5


@pytest.mark.benchmark(group="pooling head")
def test_pooling_head_forward_and_backward(benchmark: Any) -> None:
    """RN50's attention pool on a batch of dense features, gradients of all its parameters."""
    shapes = {f"{p}_proj.weight": (C if p == "c" else D, D) for p in "qkvc"}
    shapes |= {f"{p}_proj.bias": (C if p == "c" else D,) for p in "qkvc"} | {
        "positional_embedding": (T + 1, D)
    }
    head = heads.attention_pool({name: normal(*shape, name=name) for name, shape in shapes.items()}, 32)
    params = {name: p.requires_grad_() for name, p in head.copy().items()}
    x_BTD = normal(B, T, D).relu()

    def step() -> Any:
        return torch.autograd.grad(head(params, x_BTD).square().sum(), list(params.values()))

    assert len(benchmark(step)) == len(params)


@pytest.mark.benchmark(group="fused step")
@pytest.mark.parametrize("R", [1, 12])
def test_fused_training_step(benchmark: Any, pocket: backbone.Backbone, R: int) -> None:
    """One step of R replicas of SAFE on the embedded model's head: losses, gradients, optimiser."""
    safe, K = builtin().get("safe"), 10
    dense = pocket.encode_images(normal(B, 3, pocket.image_size, pocket.image_size), [DENSE])[DENSE].float()
    y = torch.arange(B) % K
    task = make_task(
        safe,
        y,
        normal(K, pocket.width),
        backbone=StandIn(head=pocket.head, scale=pocket.scale),
        preset="quick",
    )
    recipe, consts = safe.recipe(task.settings, task.facts), safe.prepare(task)
    values = [{LR: 1e-4 * (r + 1), WD: 0.0} for r in range(R)]
    params = loop.stack(
        [safe.init(task, consts, {**task.settings, **v}, rng.generator(1, "init")) for v in values]
    )
    axes = loop.axes_of(values, recipe, dense.device)
    assert recipe.optim is not None
    optimiser = optim.make(recipe.optim, params, [v[WD] for v in values])
    batch = Batch({"image": Rows(dense, y, torch.arange(B))}, 0, rng.generator(0, "noise"))
    rate_R = torch.tensor([v[LR] for v in values], dtype=torch.float64)

    def step() -> torch.Tensor:
        loss_R, grads = loop.gradients(safe, consts, params, batch, task.settings, axes)
        optimiser.step(grads, rate_R)
        return loss_R

    assert benchmark(step).shape == (R,)


@pytest.mark.benchmark(group="encode")
def test_encode(benchmark: Any, pocket: backbone.Backbone, tmp_path: Path) -> None:
    """16 images through the embedded tower into an empty store: drawing, preprocessing, forward, writing."""
    dataset = catalog.find("digits", None)
    paths, number = dataset.test.paths[:16], count()

    def fresh() -> tuple[tuple[FeatureStore], dict[str, Any]]:
        return (FeatureStore(tmp_path / str(next(number))),), {}

    def run(store: FeatureStore) -> int:
        return encode(pocket, dataset, [Wanted(paths, {"eval": ["pooled"]})], store, workers=0).encodes

    assert benchmark.pedantic(run, setup=fresh, rounds=3, warmup_rounds=1) == 16


@pytest.mark.benchmark(group="plan")
def test_few_shot_draw(benchmark: Any) -> None:
    dataset = catalog.find("emoji", None)
    assert benchmark(fewshot.draw, dataset, 4, 1).digest == fewshot.draw(dataset, 4, 1).digest


@pytest.mark.benchmark(group="plan")
def test_keys(benchmark: Any, tmp_path: Path) -> None:
    """The plan of 5 methods x 2 datasets x 3 shots x 3 seeds, keys and all."""
    request = Request(
        methods=("zero-shot", "tip-adapter", "tip-adapter-f", "safe", "safe-a"),
        datasets=("emoji", "digits"),
        shots=(1, 4, 16),
        seeds=(1, 2, 3),
        backbones=("pocket-rn",),
        results=tmp_path,
    )
    made_plan = benchmark.pedantic(planner.make, args=(request, builtin()), rounds=3, warmup_rounds=1)
    assert len({fit.key for fit in made_plan.fits}) == len(made_plan.fits) >= 4 * 2 * 9


@pytest.mark.benchmark(group="report")
def test_table(benchmark: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Table I of 5 methods x 4 datasets x 2 shots x 3 seeds with marks; records are read before."""
    folder = made.grid(
        tmp_path_factory.mktemp("results"), datasets=("birds", "fish", "tools", "dishes"), n=500
    )
    frame = load_results(folder)
    assert len(benchmark(tables.table, frame, "1").rows) == 9
