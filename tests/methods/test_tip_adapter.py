"""Tip-Adapter and Tip-Adapter-F agree with the published code's numbers (protocol 12, 21 items 4 and 15)."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.interface import POOLED, Batch, Method, Recipe, Rows, Task, points
from bench.train import hits, rng, select
from bench.train.loop import Pool
from tests.methods.support import close, drive, fixture, make_task, method, score


def setting(name: str) -> tuple[Method, Task, Recipe, dict[str, Any]]:
    """The fixture as a task: three stored views stand for the random crops."""
    f = fixture("tip")
    m = method(name)
    views = {(POOLED, f"rrc(0.5)#{v}"): x for v, x in enumerate(f["views"])}
    overrides = {
        "key_views": len(f["views"]),
        "init_alpha": float(f["alpha"]),
        "init_beta": float(f["beta"]),
        "beta_top": float(f["search_beta_scale"]),
        "alpha_top": float(f["search_alpha_scale"]),
        "beta_steps": int(f["search_beta_steps"]),
        "alpha_steps": int(f["search_alpha_steps"]),
    }
    if name == "tip-adapter-f":
        overrides |= {"lr": (float(f["lr"]),), "eps": float(f["adam_eps"]), "wd": (float(f["weight_decay"]),)}
        overrides |= {
            "epochs": len(f["F_order"]),
            "batch": int(f["F_batch_size"]),
            "epoch_views": len(f["F_views"]),
        }
    task = make_task(m, f["train_labels"], f["text_weights"], features=views, overrides=overrides)
    return m, task, m.recipe(task.settings, task.facts), f


def test_cache_and_logits() -> None:
    m, task, _, f = setting("tip-adapter")
    close(m.prepare(task)["keys_NC"], f["cache_keys"])
    at_start = {"alpha": float(f["alpha"]), "beta": float(f["beta"])}
    close(score(m, task, {}, f["val_features"], **at_start), f["val_logits_tip"])
    close(score(m, task, {}, f["val_features"], **{**at_start, "alpha": 0.0}), f["val_logits_zs"])


def test_search() -> None:
    m, task, recipe, f = setting("tip-adapter")
    val = select.Labelled({POOLED: f["val_features"]}, f["val_labels"])
    out = select.fit(m, recipe, task, m.prepare(task), {}, val)
    assert out.values["beta"] == pytest.approx(float(f["best_beta"]), abs=1e-12)
    assert out.values["alpha"] == pytest.approx(float(f["best_alpha"]), abs=1e-12)
    assert 100 * (out.val_accuracy or 0) == pytest.approx(float(f["search_acc"].max()))
    close(score(m, task, {}, f["test_features"], **out.values), f["test_logits_best"])


def test_every_point_of_the_search() -> None:
    m, task, recipe, f = setting("tip-adapter")
    grid = points(recipe.search)
    accuracy = torch.zeros(len(grid), dtype=torch.float64)
    for positions, lines in m.sweep({}, m.prepare(task), {POOLED: f["val_features"]}, task.settings, grid):
        hits_G = (lines.logits().argmax(-1) == f["val_labels"]).sum(-1)
        assert torch.equal(hits_G, hits.count(lines, f["val_labels"]))
        accuracy[list(positions)] = 100 * hits_G.double() / len(f["val_labels"])
    close(accuracy.view(f["search_acc"].shape), f["search_acc"], 1e-12)


@pytest.mark.parametrize("counts", [(3, 3, 3, 3), (4, 1, 3, 4)])
def test_class_sums_are_the_product(counts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in any order, classes of equal size (sums of rows, in blocks) or not (the product)."""
    module = sys.modules[type(method("tip-adapter")).__module__]
    monkeypatch.setattr(module, "_BLOCK", 40)
    y_N = torch.arange(4).repeat_interleave(torch.tensor(counts))[
        torch.randperm(12, generator=rng.generator(0))
    ]
    a_BN = torch.rand(5, 12, generator=rng.generator(1), dtype=torch.float64)
    onehot_NK = torch.nn.functional.one_hot(y_N, 4).double()
    sums = module.class_sums(a_BN, onehot_NK)
    for sharpness in (0.0, 0.3, 5.0):
        torch.testing.assert_close(
            sums(sharpness), module.affinity_logits(a_BN, onehot_NK, sharpness), rtol=1e-12, atol=0.0
        )


def test_equal_points_of_the_search_leave_the_first() -> None:
    """Labels that the text alone predicts at every point: all points are equal, in either order."""
    m, task, recipe, f = setting("tip-adapter")
    consts = {**m.prepare(task), "scale": 1e6}
    y_B = m.logits({}, consts, {POOLED: f["val_features"]}, {"alpha": 0.0, "beta": 1.0}).argmax(-1)
    for grid in (points(recipe.search), points(recipe.search)[::-1]):
        chosen, accuracy = select.search(
            m, consts, {}, {}, grid, select.Labelled({POOLED: f["val_features"]}, y_B)
        )
        assert chosen == grid[0] and accuracy == 1.0


def training_batches(f: dict[str, Any]) -> list[Batch]:
    size, batches = int(f["F_batch_size"]), []
    for x, order in zip(f["F_views"], f["F_order"], strict=True):
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            batches.append(
                Batch({"image": Rows(x[rows], f["train_labels"][rows], rows)}, len(batches), rng.generator(0))
            )
    return batches


@pytest.mark.parametrize("replicas", [1, 3])
def test_training_the_keys(replicas: int) -> None:
    m, task, _, f = setting("tip-adapter-f")
    batches = training_batches(f)
    start = m.init(task, m.prepare(task), task.settings, rng.generator(1))
    trace = drive(m, task, batches, start, per_epoch=len(batches) // len(f["F_order"]), replicas=replicas)
    close(torch.tensor(trace.rates, dtype=torch.float64), f["F_lr"])
    close(trace.loss(), f["F_loss"])
    close(trace.of("keys_NC"), f["F_keys_steps"])


def test_zero_epochs_leave_tip_adapter() -> None:
    m, task, _, f = setting("tip-adapter-f")
    params = m.init(task, m.prepare(task), task.settings, rng.generator(1))
    values = {"alpha": 2.0, "beta": 3.0}
    plain, plain_task, _, _ = setting("tip-adapter")
    close(
        score(m, task, params, f["test_features"], **values),
        score(plain, plain_task, {}, f["test_features"], **values),
    )


def test_epochs_are_checked_and_the_last_partial_batch_kept() -> None:
    m, task, recipe, f = setting("tip-adapter-f")
    recipe = replace(recipe, search={}, fixed={})
    x = f["F_views"].flatten(0, 1)
    val = select.Labelled({POOLED: f["val_features"]}, f["val_labels"])
    out = select.fit(
        m, recipe, task, m.prepare(task), {"image": Pool(x, f["train_labels"], len(f["F_views"]))}, val
    )
    per_epoch = -(-len(f["train_labels"]) // int(f["F_batch_size"]))
    assert [step + 1 for step, _ in out.curve[0]["checks"]] == [
        per_epoch * e for e in range(1, len(f["F_order"]) + 1)
    ]
    assert out.budget["steps"] == per_epoch * len(f["F_order"])
