"""The logistic regression is scikit-learn's, and its strength is chosen on validation (protocol 6.1)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from bench.interface import EVAL, POOLED, Task
from bench.train import rng, select
from bench.train.select import Labelled
from tests.methods.support import make_task, method, score

PROBE = method("linear-probe")


def toy(K: int, n: int = 6, C: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of overlapping classes with a common offset, which only a bias can take up."""
    g = rng.generator(seed, "logistic test")
    means_KC = torch.randn(K, C, generator=rng.generator(7, "means"), dtype=torch.float64)
    y_N = torch.arange(K).repeat(n)
    return means_KC[y_N] + 1.5 * torch.randn(K * n, C, generator=g, dtype=torch.float64) + 3.0, y_N


def task_of(K: int, **overrides: object) -> tuple[Task, torch.Tensor, torch.Tensor]:
    x_NC, y_N = toy(K)
    raw_PC = torch.eye(K, 5, dtype=torch.float64)
    return make_task(PROBE, y_N, raw_PC, features={(POOLED, EVAL): x_NC}, overrides=overrides), x_NC, y_N


@pytest.mark.parametrize("K", [2, 4])
def test_solution_is_that_of_scikit_learn(K: int) -> None:
    task, x_NC, y_N = task_of(K)
    params = PROBE.solve(task, PROBE.prepare(task), {**task.settings, "C": 0.5})
    theirs = LogisticRegression(C=0.5, max_iter=1000).fit(x_NC.numpy(), y_N.numpy())
    test_x, _ = toy(K, seed=1)
    ours = score(PROBE, task, params, test_x)
    assert ours.shape == (len(test_x), K)
    np.testing.assert_allclose(
        ours.softmax(1).numpy(), theirs.predict_proba(test_x.numpy()), rtol=0, atol=1e-12
    )


def test_solution_is_the_optimum() -> None:
    """The gradient of sum of losses + |W|^2 / (2 C) vanishes; the bias is not penalised, features are raw."""
    task, x_NC, y_N = task_of(4)
    params = {k: p.requires_grad_() for k, p in PROBE.solve(task, {}, {**task.settings, "C": 0.1}).items()}
    loss = torch.nn.functional.cross_entropy(
        PROBE.logits(params, {}, {POOLED: x_NC}, {}), y_N, reduction="sum"
    )
    total = loss + params["W_KC"].square().sum() / (2 * 0.1)
    for g in torch.autograd.grad(total, list(params.values())):
        # scikit-learn stops at a gradient of 1e-4 of the mean loss.
        assert float(g.abs().max()) < 1e-2


def accuracy(task: Task, strength: float, val: Labelled) -> float:
    params = PROBE.solve(task, {}, {**task.settings, "C": strength})
    return float((score(PROBE, task, params, val.features[POOLED]).argmax(1) == val.y).double().mean())


@pytest.mark.parametrize("rounds", [0, 1, 8])
def test_strength_is_searched_twice(rounds: int) -> None:
    """The source's loop, written out: seven powers, then the end of a shrinking interval (ties go left)."""
    task, _, _ = task_of(4, rounds=rounds)
    x, y = toy(4, n=4, seed=2)
    val = Labelled({POOLED: x}, y)
    fitted = select.fit(PROBE, PROBE.recipe(task.settings, task.facts), task, {}, {}, val)
    coarse = [accuracy(task, strength, val) for strength in task.settings["C"]]
    assert len(set(coarse)) > 1
    C = task.settings["C"][int(np.argmax(coarse))]
    ends = [0.1 * C, 10.0 * C]
    for _ in range(rounds):
        keep = int(accuracy(task, ends[0], val) < accuracy(task, ends[1], val))
        C = ends[keep]
        ends[1 - keep] = float(np.sqrt(ends[0] * ends[1]))
    assert fitted.values["C"] == pytest.approx(C) and fitted.val_accuracy == accuracy(task, C, val)
    assert fitted.budget["configurations"] == 7 + (rounds + 1 if rounds else 0)


def test_without_validation_nothing_is_searched() -> None:
    from bench.plan import protocols

    task, _, _ = task_of(4)
    recipe = protocols.apply("no-val", PROBE.recipe(task.settings, task.facts))
    fitted = select.fit(PROBE, recipe, task, {}, {}, None)
    assert fitted.values == {"C": 1.0} and fitted.budget["configurations"] == 0
