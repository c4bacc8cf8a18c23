"""ProLIP agrees with the reference's runs on both kinds of tower (protocol 18.6)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.clip.heads import PoolingHead, attention_pool
from bench.interface import PREPROJ, Facts, Task
from bench.train import loop, rng
from bench.train.loop import Pool
from tests.methods.support import StandIn, batch_of, close, drive, fixture, make_task, method, score


def head_of(family: str, weight: Tensor, bias: Tensor | None) -> PoolingHead:
    """A pooling head of which only the projection matters."""
    if bias is not None:
        return attention_pool({"c_proj.weight": weight, "c_proj.bias": bias}, 1)
    from bench.clip import vit_tail

    return PoolingHead(
        "vit", 1, {"proj": weight}, vit_tail.project, lambda p, x: x, vit_tail.project, lambda p, x: x
    )


def prepared(family: str) -> tuple[dict[str, Any], Task, str]:
    data = fixture(f"prolip_{family}")
    head = head_of(family, data["weight_init"], data.get("bias"))
    overrides = {"lr": (float(data["lr"]),), "epochs": int(data["epochs"]), "views": len(data["views"])}
    task = make_task(
        method("prolip"),
        data["labels"],
        data["text_features"],
        backbone=StandIn(head=head, family=family),
        shots=int(data["shots"]),
        overrides=overrides,
    )
    return data, task, "c_proj.weight" if family == "rn" else "proj"


@pytest.mark.parametrize("family", ["rn", "vit"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_epochs_equal_the_reference(family: str, replicas: int) -> None:
    data, task, name = prepared(family)
    lip = method("prolip")
    consts = lip.prepare(task)
    start = lip.init(task, consts, task.settings, rng.generator(1, "init"))
    assert set(start) == {name}
    sequence = [batch_of(data["views"][v], data["labels"], i) for i, v in enumerate(data["view_order"])]
    trace = drive(lip, task, sequence, start, consts=consts, replicas=replicas)
    close(torch.tensor(trace.rates, dtype=torch.float64), data["lr_used"])
    close(trace.loss(), data["loss_ce"] + data["lam"] * data["loss_anchor"])
    close(trace.of(name), data["weight_steps"])
    classes = score(lip, task, trace.params[-1], data["test_inputs"], tap=PREPROJ).argmax(1)
    assert 100.0 * float((classes == data["test_labels"]).double().mean()) == pytest.approx(
        float(data["test_acc"])
    )


@pytest.mark.parametrize("family", ["rn", "vit"])
def test_the_engine_takes_the_views_in_the_published_order(family: str) -> None:
    """Epoch e uses view e + 1 of the bank, all images in one batch, and the last step is kept."""
    data, task, name = prepared(family)
    lip = method("prolip")
    consts, recipe = lip.prepare(task), lip.recipe(task.settings, task.facts)
    start = [lip.init(task, consts, task.settings, rng.generator(1, "init"))]
    pools = {"image": Pool(data["views"].flatten(0, 1), data["labels"], len(data["views"]))}
    point = {axis: values[0] for axis, values in recipe.grid.items()}
    trained = loop.train(lip, recipe, consts, start, [point], task.settings, pools, 1, None)
    close(trained.params[name][0], data["weight_steps"][-1])
    assert trained.steps == int(data["epochs"])


def test_published_recipes() -> None:
    lip = method("prolip")
    facts = Facts(4, 10, 40, 10, "default", "rn", "paper")
    recipe = lip.recipe(lip.settings, facts)
    assert recipe.grid == {"lr": (1e-5,), "lam": (0.25,)} and recipe.select == "last"
    assert len(recipe.streams["image"].views) == recipe.epochs == 300
    searched = lip.recipe({**lip.settings, "lr": (1e-2, 1e-3), "lam": (10.0, 1.0, 0.0)}, facts)
    assert searched.grid["lam"] == (10.0, 1.0, 0.0) and searched.fixed["lam"] == 0.25
