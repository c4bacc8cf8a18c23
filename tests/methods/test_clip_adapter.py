"""CLIP-Adapter agrees with its reference run (protocol 11, 21.11)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.interface import Facts, Task
from bench.train import loop
from tests.methods import support
from tests.methods.support import batch_of, close, drive, make_task, score

ADAPTER = support.method("clip-adapter")


@pytest.fixture(scope="module")
def file() -> dict[str, Any]:
    return support.fixture("clip_adapter")


def task_of(f: dict[str, Any], **overrides: Any) -> Task:
    return make_task(
        ADAPTER,
        f["labels"],
        f["text_features"],
        scale=float(f["logit_scale"]),
        shots=8,
        overrides={"rho": (float(f["ratio"]),), **overrides},
    )


def start_of(f: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {"w1_HC": f["W1_init"], "w2_CH": f["W2_init"]}


@pytest.mark.parametrize("replicas", [1, 3])
def test_six_steps_of_the_reference(file: dict[str, Any], replicas: int) -> None:
    f, task = file, task_of(file)
    rho = float(f["ratio"])
    close(score(ADAPTER, task, start_of(f), f["val_features"], rho=rho), f["val_logits_init"])
    batches = [
        batch_of(f["image_features"][rows], f["labels"][rows], i) for i, rows in enumerate(f["batches"])
    ]
    trace = drive(
        ADAPTER, task, batches, start_of(f), per_epoch=2, epochs=int(f["max_epoch"]), replicas=replicas
    )
    close(torch.tensor(trace.rates, dtype=torch.float64), f["lr"])
    close(trace.loss(), f["loss"])
    close(trace.of("w1_HC")[-1], f["W1_final"])
    close(trace.of("w2_CH")[-1], f["W2_final"])
    close(score(ADAPTER, task, trace.params[-1], f["val_features"], rho=rho), f["val_logits_final"])


def test_ratio_zero_is_zero_shot(file: dict[str, Any]) -> None:
    task = task_of(file)
    zero_shot = support.method("zero-shot")
    want = score(zero_shot, task, {}, file["val_features"])
    close(score(ADAPTER, task, start_of(file), file["val_features"], rho=0.0), want, 1e-12)


def test_replicas_with_other_ratios_equal_their_own_runs(file: dict[str, Any]) -> None:
    """The ratio is a replica's own value inside the loss, in the parameters' precision."""
    task = task_of(file, rho=(0.2, 0.6))
    recipe, consts = ADAPTER.recipe(task.settings, task.facts), ADAPTER.prepare(task)
    points = [{"lr": 0.002, "wd": 5e-4, "rho": rho} for rho in (0.2, 0.6)]
    axes = loop.axes_of(points, recipe, torch.device("cpu"), torch.float64)
    batch = batch_of(file["image_features"], file["labels"])
    _, together = loop.gradients(
        ADAPTER, consts, loop.stack([start_of(file)] * 2), batch, task.settings, axes
    )
    for r, rho in enumerate((0.2, 0.6)):
        alone = drive(ADAPTER, task_of(file, rho=(rho,)), [batch], start_of(file)).grads[0]
        for name in together:
            torch.testing.assert_close(together[name][r], alone[name], rtol=1e-12, atol=1e-14)


def test_grid_start_and_fixed_values(file: dict[str, Any]) -> None:
    settings = ADAPTER.settings
    recipe = ADAPTER.recipe(settings, Facts(16, 5, 80, 5, "default", "rn", "paper"))
    assert recipe.grid["rho"] == (0.2, 0.4, 0.6, 0.8) and recipe.select == "last" and recipe.epochs == 200
    assert recipe.fixed == {"lr": 0.002, "wd": 5e-4, "rho": 0.2}
    task = task_of(file)
    params = ADAPTER.init(task, ADAPTER.prepare(task), settings, torch.Generator().manual_seed(0))
    assert {k: tuple(p.shape) for k, p in params.items()} == {"w1_HC": (8, 32), "w2_CH": (32, 8)}
    for p in params.values():
        bound = p.shape[1] ** -0.5
        assert 0.9 * bound < float(p.abs().max()) <= bound
