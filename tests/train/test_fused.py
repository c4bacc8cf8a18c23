"""Replicas trained together equal replicas trained alone in any company: equal predictions in float64."""

from __future__ import annotations

import pytest
import torch

from bench.interface import Method, points
from bench.train import loop, rng, select
from bench.train.keep import Trained
from tests.train.engine_cases import OVERRIDES, Case, case

NAMES = sorted(OVERRIDES)


def assert_same(c: Case, one: select.Fitted, other: select.Fitted) -> None:
    """The same choice at the same step, and the same predictions to float64's rounding."""
    assert (one.values, one.step, one.val_accuracy) == (other.values, other.step, other.val_accuracy)
    a, b = c.logits(one), c.logits(other)
    assert a.dtype == torch.float64
    torch.testing.assert_close(a, b, rtol=0.0, atol=1e-9 * float(b.abs().max()))
    assert torch.equal(a.argmax(-1), b.argmax(-1))


@pytest.mark.parametrize("name", NAMES)
def test_fused_equals_sequential(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    c = case(name)
    fused = c.fit()
    assert len(points({**c.recipe.grid, **c.recipe.static})) > 2
    monkeypatch.setattr(type(c.method), "fuse", False)
    looped = c.fit()
    assert_same(c, fused, looped)
    for a, b in zip(fused.curve, looped.curve, strict=True):
        assert a["point"] == b["point"] and a["checks"] == b["checks"]


@pytest.mark.parametrize("name", NAMES)
def test_company_does_not_matter(name: str) -> None:
    """The chosen grid point alone gives what it gave among the others."""
    c = case(name)
    together = c.fit()
    grid = {axis: (together.values[axis],) for axis in c.recipe.grid}
    static = {axis: (together.values[axis],) for axis in c.recipe.static}
    # A static batch rescales the streams that the recipe was made with, so it stays an axis of one value.
    assert_same(c, together, c.fit(grid=grid, static=static))


@pytest.mark.parametrize("name", NAMES)
def test_every_replica_alone(name: str) -> None:
    """Not only the chosen one: each replica's checkpoint, score and step, in reversed company and alone."""
    c = case(name)
    settings = {**c.task.settings, **{axis: v[0] for axis, v in c.recipe.static.items()}}
    values = points(c.recipe.grid)
    score = select.scorer(c.method, c.recipe, c.consts, settings, c.val)

    def train(chosen: list[dict[str, float]]) -> Trained:
        start = [c.method.init(c.task, c.consts, {**settings, **v}, rng.generator(1, "init")) for v in chosen]
        return loop.train(c.method, c.recipe, c.consts, start, chosen, settings, c.pools, 1, score)

    together, reverse = train(values), train(values[::-1])
    assert len({tuple(p.flatten()[:50].tolist()) for p in next(iter(together.params.values()))}) > 1, (
        "replicas do differ"
    )
    for r, v in enumerate(values):
        for other, at in ((reverse, len(values) - 1 - r), (train([v]), 0)):
            assert (together.score[r], together.step[r]) == (other.score[at], other.step[at])
            for k, p in loop.replica(together.params, r).items():
                torch.testing.assert_close(p, other.params[k][at], rtol=1e-9, atol=1e-12)


def test_patience_is_each_replicas_own() -> None:
    """A replica that stops improving keeps what it has, even if its company goes on."""
    c = case("safe", steps=40, check_every=1, patience=2, lr=(3e-2, 1e-7))
    settings, values = c.task.settings, points(c.recipe.grid)
    score = select.scorer(c.method, c.recipe, c.consts, settings, c.val)

    def train(chosen: list[dict[str, float]]) -> Trained:
        start = [c.method.init(c.task, c.consts, {**settings, **v}, rng.generator(1, "init")) for v in chosen]
        return loop.train(c.method, c.recipe, c.consts, start, chosen, settings, c.pools, 1, score)

    together, alone = train(values), [train([v]) for v in values]
    assert len({a.steps for a in alone}) > 1, "the replicas stop at different steps"
    assert together.steps == max(a.steps for a in alone)
    assert together.step == [a.step[0] for a in alone] and together.score == [a.score[0] for a in alone]


def test_the_comparison_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise that depends on the call breaks the equality, and the assertion sees it."""
    c = case("cross-modal-linear")
    one = c.fit()
    calls = iter(range(10**6))
    original = type(c.method).losses

    def noisy(self: Method, params: dict, consts: dict, batch: object, values: dict) -> dict:  # type: ignore[type-arg]
        scale = 1.0 + 1e-3 * (next(calls) % 3)
        return {name: scale * x for name, x in original(self, params, consts, batch, values).items()}  # type: ignore[arg-type]

    monkeypatch.setattr(type(c.method), "losses", noisy)
    with pytest.raises(AssertionError):
        assert_same(c, one, c.fit())
