"""CLAP and ZS-LP agree with their reference runs (protocol 18.4, 21.11)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.interface import POOLED, Facts, Task
from tests.methods import support
from tests.methods.support import batch_of, close, drive, make_task, score

CLAP, ZSLP = support.method("clap"), support.method("zs-lp")


def file_and_task(method: Any, name: str) -> tuple[dict[str, Any], Task]:
    """The file's 40 rows as one view of 40 images: they are augmented already."""
    f = support.fixture(name)
    features = {(POOLED, "rrc(0.08)#0"): f["image_features"]}
    return f, make_task(
        method,
        f["labels"],
        f["text_features"],
        scale=float(f["logit_scale"]),
        features=features,
        overrides={"views": 1},
    )


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("name", ["clap", "zslp"])
def test_six_steps_of_the_reference(name: str, replicas: int) -> None:
    method = {"clap": CLAP, "zslp": ZSLP}[name]
    f, task = file_and_task(method, name)
    consts = method.prepare(task)
    if name == "clap":
        close(consts["lam_K"], f["constraint_weights"])
    start = method.init(task, consts, task.settings, torch.Generator())
    close(score(method, task, start, f["image_features"]), f["support_logits_zeroshot"])
    close(score(method, task, start, f["val_features"]), f["val_logits_init"])
    batches = [
        batch_of(f["image_features"][rows], f["labels"][rows], i) for i, rows in enumerate(f["batches"])
    ]
    trace = drive(method, task, batches, start, per_epoch=2, epochs=int(f["max_epoch"]), replicas=replicas)
    close(torch.tensor(trace.rates, dtype=torch.float64), f["lr"])
    close(trace.loss(), f["loss"])
    close(trace.of("prototypes_KC"), f["prototypes_steps"])
    close(score(method, task, trace.params[-1], f["val_features"]), f["val_logits_final"])
    if name == "clap":
        before = [start, *trace.params[:-1]]
        free = [
            ZSLP.losses(p, consts, b, task.settings)["loss"] for p, b in zip(before, batches, strict=True)
        ]
        close(trace.loss() - torch.stack(free), f["penalty"])


def test_start_is_zero_shot_and_no_weights_means_zs_lp() -> None:
    f, task = file_and_task(CLAP, "clap")
    consts = CLAP.prepare(task)
    start = CLAP.init(task, consts, task.settings, torch.Generator())
    close(
        score(CLAP, task, start, f["val_features"]),
        score(support.method("zero-shot"), task, {}, f["val_features"]),
        1e-12,
    )
    moved = {"prototypes_KC": start["prototypes_KC"] + 0.1 * f["prototypes_steps"][0]}
    batch = batch_of(f["image_features"], f["labels"])
    off = {**consts, "lam_K": torch.zeros_like(consts["lam_K"])}
    loss = {m.name: m.losses(moved, off, batch, {})["loss"] for m in (CLAP, ZSLP)}
    assert torch.equal(loss["clap"], loss["zs-lp"])
    assert float(CLAP.losses(moved, consts, batch, {})["loss"]) > float(loss["clap"])


def test_weights_average_over_views_and_survive_an_empty_class() -> None:
    from bench.methods.clap import class_weights

    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 5.0, 0.0]], dtype=torch.float64)
    p = torch.softmax(logits, -1)
    want = torch.stack([(p[0, 0] + p[1, 0]) / 2, p[2, 1], torch.zeros((), dtype=torch.float64)])
    close(class_weights(logits, torch.tensor([0, 0, 1])), want, 1e-12)


def test_an_epoch_touches_about_n_rows() -> None:
    from bench.recipe import steps_per_epoch

    for method in (CLAP, ZSLP):
        recipe = method.recipe(method.settings, Facts(16, 50, 800, 50, "default", "rn", "paper"))
        stream = recipe.streams["image"]
        assert (recipe.epochs, recipe.select, len(stream.views), stream.rows) == (300, "last", 20, "union")
        assert steps_per_epoch(stream.order, 20 * 800, stream.batch, 800) == 3
        assert (recipe.grid, recipe.optim.name, recipe.optim.momentum) == (
            {"lr": (0.1,), "wd": (0.0,)},
            "sgd",
            0.9,
        )
    assert (
        CLAP.recipe(CLAP.settings, Facts(1, 5, 5, 5, "default", "rn", "paper")).support[POOLED]
        == stream.views
    )
