"""CALIP agrees with its reference run; CALIP-FS starts there and moves as computed by hand (protocol 14)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bench.clip.heads import attention_pool
from bench.interface import TOKENS, Task, points, unit
from bench.train.select import Labelled, search
from tests.methods import support
from tests.methods.support import batch_of, close, drive, fixture, make_task

CALIP, FS = support.method("calip"), support.method("calip-fs")
EXACT = 1e-12


def tokens_of(f: dict[str, Any]) -> torch.Tensor:
    head = attention_pool({k[2:]: v for k, v in f.items() if k.startswith("w.")}, int(f["num_heads"]))
    return head.all_tokens(head.params, f["maps"].flatten(2).transpose(1, 2))


def task_of(f: dict[str, Any], **overrides: Any) -> Task:
    return make_task(CALIP, f["labels"], f["text_features"], overrides=overrides)


def test_the_three_terms_of_the_reference() -> None:
    f = fixture("calip")
    x_BTC, task = tokens_of(f), task_of(f)
    close(unit(x_BTC), f["all_token_features_unit"])
    parts = CALIP.parts({}, CALIP.prepare(task), x_BTC)
    for part, name in zip(parts, ("zeroshot", "text_side", "visual_side"), strict=True):
        close(part, f[f"logits_{name}"])
    for betas, wanted in zip(f["betas"], f["logits_mixed"], strict=True):
        values = {"beta2": float(betas[0]), "beta3": float(betas[1])}
        close(CALIP.logits({}, CALIP.prepare(task), {TOKENS: x_BTC}, values), wanted)


def test_the_search_of_the_reference() -> None:
    f = fixture("calip")
    tops = {"beta2_top": float(f["search_beta2_max"]), "beta3_top": float(f["search_beta3_max"])}
    task = task_of(f, **tops)
    recipe = CALIP.recipe(task.settings, task.facts)
    grid, consts, x_BTC = points(recipe.search), CALIP.prepare(task), tokens_of(f)
    hits = np.zeros(len(grid))
    for positions, logits_GBK in CALIP.sweep({}, consts, {TOKENS: x_BTC}, task.settings, grid):
        hits[list(positions)] = (logits_GBK.argmax(-1) == f["labels"]).sum(-1).numpy()
    accuracy = 100.0 * hits.reshape(200, 200) / len(f["labels"])
    # The file holds single precision; in float64 no cell may differ.
    assert np.abs(accuracy - f["search_acc"].numpy()).max() < 1e-4
    val = Labelled({TOKENS: x_BTC}, f["labels"])
    best, highest = search(CALIP, consts, {}, task.settings, grid, val)
    assert best["beta2"] == pytest.approx(float(f["best_beta2"]), rel=EXACT)
    assert best["beta3"] == pytest.approx(float(f["best_beta3"]), rel=EXACT)
    assert 100.0 * highest == pytest.approx(float(f["best_acc"]))


def random_task(
    method: Any = FS, K: int = 4, C: int = 6, **overrides: Any
) -> tuple[Task, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(5)
    x_BTC = torch.randn(7, 5, C, generator=g, dtype=torch.float64)
    y_B = torch.randint(K, (7,), generator=g)
    raw_KC = torch.randn(K, C, generator=g, dtype=torch.float64)
    return make_task(method, y_B, raw_KC, overrides=overrides, shots=2), x_BTC, y_B


def test_zero_betas_are_zero_shot() -> None:
    task, x_BTC, _ = random_task(CALIP)
    logits_BK = support.score(CALIP, task, {}, x_BTC, TOKENS, beta2=0.0, beta3=0.0)
    close(logits_BK, task.scale * unit(x_BTC[:, 0]) @ task.W_KC.T, EXACT)


def test_the_reconstruction_starts_at_calip() -> None:
    task, x_BTC, _ = random_task()
    consts = FS.prepare(task)
    params = FS.init(task, consts, task.settings, torch.Generator())
    values = {"beta2": 0.7, "beta3": 0.06}
    close(
        FS.logits(params, consts, {TOKENS: x_BTC}, values),
        CALIP.logits({}, consts, {TOKENS: x_BTC}, values),
        EXACT,
    )


@pytest.mark.parametrize("replicas", [1, 2])
def test_one_step_of_the_reconstruction(replicas: int) -> None:
    """Loss and gradient by loops over images, tokens and classes; AdamW's first step by its definition."""
    task, x_BTC, y_B = random_task(lr=(1e-3,), wd=(0.01,))
    g = torch.Generator().manual_seed(6)
    C, scale = 6, task.scale
    start = {
        n: 0.1 * torch.randn(C, C, generator=g, dtype=torch.float64)
        for n in ("query_CC", "key_CC", "value_CC", "out_CC")
    }
    maps = {n: (torch.eye(C, dtype=torch.float64) + d).requires_grad_() for n, d in start.items()}
    q, k, v, o = (maps[n] for n in ("query_CC", "key_CC", "value_CC", "out_CC"))
    losses = []
    for x_TC, y in zip(x_BTC, y_B, strict=True):
        rows = [token / token.norm() for token in x_TC]
        f, spatial, texts = rows[0], rows[1:], list(task.W_KC)
        logits = []
        for text in texts:
            weights = torch.stack([2 * (text @ q) @ (s @ k) for s in spatial]).exp()
            mix = sum(w * (s @ v) for w, s in zip(weights / weights.sum(), spatial, strict=True))
            logits.append(scale * f @ text + task.settings["train_beta2"] * scale * f @ (mix @ o))
        visual = []
        for s in spatial:
            weights = torch.stack([2 * (s @ q) @ (t @ k) for t in texts]).exp()
            visual.append(sum(w * (t @ v) for w, t in zip(weights / weights.sum(), texts, strict=True)) @ o)
        stacked = torch.stack(visual)
        pooled = stacked.mean(0) + stacked.max(0).values
        row = torch.stack(logits) + task.settings["train_beta3"] * scale * torch.stack(
            [pooled @ t for t in texts]
        )
        losses.append(torch.logsumexp(row, 0) - row[y])
    loss = torch.stack(losses).mean()
    loss.backward()
    trace = drive(FS, task, [batch_of(x_BTC, y_B)], start, replicas=replicas)
    assert trace.losses[0]["loss"] == pytest.approx(float(loss.detach()), rel=1e-10)
    for name, d in start.items():
        grad = maps[name].grad
        assert grad is not None
        close(trace.grads[0][name], grad)
        close(trace.params[0][name], d * (1 - 1e-3 * 0.01) - 1e-3 * grad / (grad.abs() + 1e-8), 1e-8)
