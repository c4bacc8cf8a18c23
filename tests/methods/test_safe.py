"""SAFE and SAFE-A do as specified on a tiny attention pool in float64 (protocol 15, 16, 21 items 3 and 4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.clip.heads import PoolingHead, attention_pool
from bench.interface import DENSE, EVAL, FLIP, POOLED, Method, State, Task, points
from bench.train import rng, select
from bench.train.loop import Pool
from tests.methods.support import StandIn, make_task, method

K, C, D, S, N, HEADS = 3, 8, 16, 4, 12, 2


def tiny_head(seed: int = 0) -> PoolingHead:
    """A random attention pool, D -> C over S grid positions."""
    g = rng.generator(seed, "tiny head")
    shapes = {"positional_embedding": (S + 1, D), "c_proj.weight": (C, D), "c_proj.bias": (C,)}
    shapes |= {f"{n}_proj.weight": (D, D) for n in "qkv"} | {f"{n}_proj.bias": (D,) for n in "qkv"}
    return attention_pool(
        {n: 0.3 * torch.randn(s, generator=g, dtype=torch.float64) for n, s in shapes.items()}, HEADS
    )


@pytest.fixture(scope="module")
def head() -> PoolingHead:
    head = tiny_head()
    # Methods copy the head in float32 for training; these tests keep float64 to compare exactly.
    object.__setattr__(head, "copy", lambda dtype=None: {n: p.clone() for n, p in head.params.items()})
    return head


def dense(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, S, D, generator=rng.generator(seed, "dense"), dtype=torch.float64)


def features(head: PoolingHead, n: int, seed: int) -> dict[str, torch.Tensor]:
    x = dense(n, seed)
    return {DENSE: x, POOLED: head(head.params, x)}


def task_for(
    name: str, head: PoolingHead, states: dict[str, State] | None = None, **overrides: Any
) -> tuple[Method, Task]:
    m = method(name)
    known = {}
    for i, view in enumerate((EVAL, FLIP)):
        by_tap = features(head, N, 10 + i)
        known |= {(tap, view): x for tap, x in by_tap.items()}
    raw_KC = torch.randn(K, C, generator=rng.generator(5, "text"), dtype=torch.float64)
    task = make_task(
        m,
        torch.arange(N) % K,
        raw_KC,
        features=known,
        backbone=StandIn(head=head),
        states=states,
        preset="quick",
        overrides=overrides,
    )
    return m, task


def fitted(
    name: str, head: PoolingHead, states: dict[str, State] | None = None, **overrides: Any
) -> tuple[Any, ...]:
    m, task = task_for(name, head, states, **overrides)
    recipe = m.recipe(task.settings, task.facts)
    consts = m.prepare(task)
    views = torch.cat([task.features(DENSE, EVAL), task.features(DENSE, FLIP)])
    val = select.Labelled(features(head, 2 * K, 20), torch.arange(2 * K) % K)
    out = select.fit(m, recipe, task, consts, {"image": Pool(views, task.labels_N, 2)}, val)
    return m, task, consts, out


def test_untrained_safe_is_zero_shot_for_every_beta(head: PoolingHead) -> None:
    m, task = task_for("safe", head)
    consts, seen = m.prepare(task), features(head, 7, 30)
    zero_shot = method("zero-shot").logits({}, {"W_KC": task.W_KC, "scale": task.scale}, seen, {})
    params = m.init(task, consts, task.settings, rng.generator(1))
    for beta in (0.0, 0.3, 1.0, 4.0):
        logits = m.logits(params, consts, seen, {**task.settings, "beta": beta})
        torch.testing.assert_close(logits, zero_shot, rtol=1e-10, atol=1e-10)


def test_beta_zero_is_the_tuned_head_alone(head: PoolingHead) -> None:
    m, task, consts, out = fitted("safe", head, steps=6)
    seen = features(head, 7, 30)
    tuned = head(out.params, seen[DENSE])
    expected = task.scale * torch.nn.functional.normalize(tuned, dim=-1) @ task.W_KC.T
    torch.testing.assert_close(m.logits(out.params, consts, seen, {**task.settings, "beta": 0.0}), expected)
    assert any(not torch.equal(out.params[n], p) for n, p in head.params.items() if n != "k_proj.bias")


def test_raw_and_unit_blending_differ(head: PoolingHead) -> None:
    m, task = task_for("safe", head)
    consts, seen = m.prepare(task), features(head, 7, 30)
    longer = {n: 1.3 * p for n, p in head.params.items()}
    raw, unit = (m.logits(longer, consts, seen, {**task.settings, "blend": how}) for how in ("raw", "unit"))
    assert not torch.allclose(raw, unit)


def test_fused_equals_sequential(head: PoolingHead, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same replicas in one stack and one by one: equal parameters in float64."""
    _, _, _, fused = fitted("safe", head, steps=12)
    monkeypatch.setattr(type(method("safe")), "fuse", False)
    _, _, _, looped = fitted("safe", head, steps=12)
    assert fused.values == looped.values
    assert fused.curve == looped.curve
    for name, p in fused.params.items():
        torch.testing.assert_close(p, looped.params[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["accuracy", "loss"])
def test_selection_follows_the_checks(head: PoolingHead, name: str) -> None:
    _, _, _, out = fitted("safe", head, steps=9, check_every=4, criterion=name)
    assert [step for step, _ in out.curve[0]["checks"]] == [0, 4, 8]
    if name == "accuracy":
        best = max(a for c in out.curve for _, a in c["checks"])
        first = next(c for c in out.curve if any(a == best for _, a in c["checks"]))
        assert out.val_accuracy == best
        assert out.values["lr"] == first["point"]["lr"]
        assert out.step == next(s for s, a in first["checks"] if a == best)


def test_trained_classifier_and_tail_settings(head: PoolingHead) -> None:
    _, task, _, out = fitted("safe", head, steps=4, train_classifier=True)
    assert not torch.equal(out.params["W_KC"], task.W_KC)


def test_safe_a_without_its_cache_is_safe(head: PoolingHead) -> None:
    safe, task, consts, out = fitted("safe", head, steps=6)
    state = State(out.params, out.values)
    m, task_a = task_for("safe-a", head, {"safe": state})
    consts_a, seen = m.prepare(task_a), features(head, 7, 30)
    logits = m.logits({}, consts_a, seen, {**task_a.settings, "alpha": 0.0, "gamma": 1.0})
    expected = safe.logits(out.params, consts, seen, task.settings)
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)


def test_safe_a_sweep_equals_point_by_point(head: PoolingHead) -> None:
    _, _, _, out = fitted("safe", head, steps=6)
    m, task = task_for("safe-a", head, {"safe": State(out.params, out.values)}, gamma_steps=5, alpha_steps=3)
    grid = points(m.recipe(task.settings, task.facts).search)
    assert grid[0]["alpha"] == 0.0, "ties fall back to SAFE"
    consts, seen = m.prepare(task), features(head, 7, 30)
    seen_points = []
    for positions, lines in m.sweep({}, consts, seen, task.settings, grid):
        for i, got in zip(positions, lines.logits(), strict=True):
            seen_points.append(i)
            torch.testing.assert_close(got, m.logits({}, consts, seen, {**task.settings, **grid[i]}))
    assert sorted(seen_points) == list(range(len(grid)))


def test_safe_a_can_train_its_keys(head: PoolingHead) -> None:
    _, _, _, out = fitted("safe", head, steps=6)
    m, task = task_for(
        "safe-a", head, {"safe": State(out.params, out.values)}, train_keys=True, epochs=2, gamma_steps=3
    )
    recipe, consts = m.recipe(task.settings, task.facts), m.prepare(task)
    x = consts["blended_VNC"]
    val = select.Labelled(features(head, 2 * K, 20), torch.arange(2 * K) % K)
    trained = select.fit(
        m, recipe, task, consts, {"image": Pool(x.flatten(0, 1), task.labels_N, len(x))}, val
    )
    assert not torch.equal(
        trained.params["keys_NC"], m.init(task, consts, task.settings, rng.generator(1))["keys_NC"]
    )


def test_published_recipe() -> None:
    """12 grid points in sweep order, 128 checks at 0, 100, ..., 12700 (protocol 15.1, 21.9)."""
    m = method("safe")
    _, task = task_for("safe", tiny_head())
    recipe = m.recipe(dict(m.settings), replace(task.facts, preset="paper"))
    assert points(recipe.grid)[:4] == [
        {"lr": 1e-4, "wd": 0.0},
        {"lr": 1e-4, "wd": 1e-3},
        {"lr": 1e-4, "wd": 1e-5},
        {"lr": 1e-5, "wd": 0.0},
    ]
    assert len(points(recipe.grid)) == 12
    assert (recipe.steps, recipe.check_every, recipe.streams["image"].batch) == (12800, 100, 8)
    assert len(range(0, 12800, 100)) == 128


def test_quick_recipe() -> None:
    """The embedded suite's budget: three learning rates, 300 steps, checks every 25, no weight-decay axis."""
    m = method("safe")
    _, task = task_for("safe", tiny_head())
    recipe = m.recipe({**m.settings, **m.presets["quick"]}, task.facts)
    assert (len(points(recipe.grid)), recipe.steps, recipe.check_every) == (3, 300, 25)
    tip = method("tip-adapter-f")
    banks = tip.recipe({**tip.settings, **tip.presets["quick"]}, task.facts)
    assert banks.streams["image"].views == banks.support[POOLED], "one bank serves the cache and the epochs"
    assert len(banks.support[POOLED]) == 4
