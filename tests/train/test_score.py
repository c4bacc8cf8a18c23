"""Lanes scored in one call are scored as each alone, on slices of any size; the search likewise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.interface import Params, fit_values, points, scored_values
from bench.train import join, loop, rng, score, slices
from bench.train.keep import Labelled
from tests.train.engine_cases import Case, case, on
from tests.train.test_join import NAMES, cases


def lanes(group: list[Case]) -> tuple[list[loop.Lane], list[dict[str, float]], Params]:
    """The lanes of cases, their grid points, and all replicas at starts that differ."""
    values = points(group[0].recipe.grid)
    settings = [fit_values(c.method, c.task.settings) for c in group]
    made = [
        loop.Lane(
            c.consts,
            [c.method.init(c.task, c.consts, s.with_(v), rng.generator(c.task.seed, "init")) for v in values],
            c.pools,
            c.task.seed,
            c.val,
        )
        for c, s in zip(group, settings, strict=True)
    ]
    stacked = loop.stack([start for lane in made for start in lane.start])
    g = rng.generator(1, "moved")
    with torch.no_grad():
        for p in stacked.values():
            p += 0.3 * torch.randn(p.shape, generator=g, dtype=p.dtype).to(p.device)
    return made, values, stacked


def static(c: Case) -> Any:
    return fit_values(c.method, c.task.settings).with_(points(c.recipe.static)[0])


def joined(group: list[Case], of: list[loop.Lane], most: int) -> Any:
    c = group[0]
    shared, varying = join.merged([lane.consts for lane in of])
    return join.scorer(c.method, c.recipe, of, shared, varying, static(c), most)


def few(c: Case, n: int) -> Case:
    return replace(c, val=Labelled({tap: x[:n] for tap, x in c.val.features.items()}, c.val.y[:n]))


def assert_as_alone(group: list[Case], asked: list[int], most: int) -> None:
    of, values, stacked = lanes(group)
    R, seen = len(values), set()
    for g, found in zip(asked, joined(group, of, most)(stacked, values, asked), strict=True):
        c, own = group[g], {name: p[g * R : (g + 1) * R] for name, p in stacked.items()}
        assert c.val is not None
        alone = score.scorer(c.method, c.recipe, c.consts, static(c), c.val)(own, values)
        for one, other in zip(alone, found, strict=True):
            assert other.dtype == torch.float64
            torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-12)
        seen.add(tuple(alone[1].tolist()))
    assert len(seen) == len(asked), "lanes do differ"


@pytest.mark.parametrize("name", NAMES)
def test_lanes_are_scored_as_alone(name: str) -> None:
    assert_as_alone(cases(name), [0, 1, 2], slices.PROCESSOR)


@pytest.mark.parametrize("asked", [[0, 1, 2, 3], [3, 0, 2], [1, 3], [1]])
def test_some_lanes_and_sets_of_other_sizes(asked: list[int]) -> None:
    """Lanes that have ended are not asked for; those of few shots have fewer images."""
    group = [few(c, 9) if i == 1 else c for i, c in enumerate(cases("safe", n=4))]
    assert_as_alone(group, asked, 40_000)


def test_one_call_scores_the_lanes_whose_sets_have_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    group = [few(c, 9) if i < 2 else c for i, c in enumerate(cases("safe", n=5))]
    of, values, stacked = lanes(group)
    original, rows = type(group[0].method).logits, list[int]()

    def counted(self: Any, params: Params, consts: Any, features: Any, values: Any) -> torch.Tensor:
        rows.append(len(next(iter(features.values()))))
        return original(self, params, consts, features, values)

    monkeypatch.setattr(type(group[0].method), "logits", counted)
    judge = joined(group, of, slices.PROCESSOR)
    judge(stacked, values, range(5))
    assert rows == [9, 20]
    judge(stacked, values, [0, 3])
    assert rows[2:] == [9, 20]


def test_large_sets_are_scored_lane_by_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of one shape: together they would take longer."""
    group = cases("safe")
    of, values, stacked = lanes(group)
    whole = 20 * score.image_bytes(group[0].val.features) * len(values)
    original, calls = type(group[0].method).logits, list[int]()

    def counted(self: Any, *given: Any) -> torch.Tensor:
        calls.append(0)
        return original(self, *given)

    monkeypatch.setattr(type(group[0].method), "logits", counted)
    for limit, expected in ((whole, 1), (whole - 1, 3)):
        calls.clear()
        monkeypatch.setitem(slices.TOGETHER, "cpu", limit)
        joined(group, of, slices.PROCESSOR)(stacked, values, range(3))
        assert len(calls) == expected


def test_lanes_with_and_without_validation_stay_apart() -> None:
    group = cases("safe", n=2)
    of, *_ = lanes(group)
    with pytest.raises(join.Apart, match="some have no validation images"):
        joined(group, [of[0], replace(of[1], val=None)], slices.PROCESSOR)
    assert joined(group, [replace(lane, val=None) for lane in of], slices.PROCESSOR) is None


def test_logits_that_write_into_what_is_given_are_found() -> None:
    group = cases("safe", n=2)

    class Writes(type(group[0].method)):  # type: ignore[misc]
        def logits(self, params: Params, consts: Any, features: Any, values: Any) -> torch.Tensor:
            for x in features.values():
                x.mul_(1.0)
            made: torch.Tensor = super().logits(params, consts, features, values)
            return made

    group = [replace(c, method=Writes()) for c in group]
    of, values, stacked = lanes(group)
    with pytest.raises(ValueError, match="wrote into features"):
        joined(group, of, slices.PROCESSOR)(stacked, values, [0, 1])


@pytest.mark.parametrize("name", ["safe", "linear-probe-sgd"])
def test_slices_change_no_score(name: str) -> None:
    c = case(name)
    _, values, stacked = lanes([c])
    found = [
        score.scorer(c.method, c.recipe, c.consts, static(c), c.val, most)(stacked, values)
        for most in (1, 30_000, slices.PROCESSOR)
    ]
    for accuracy_R, gain_R in found:
        assert torch.equal(accuracy_R, found[0][0])
        torch.testing.assert_close(gain_R, found[0][1], rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("alone", [True, False])
def test_later_checks_begin_with_the_slices_that_memory_held(
    alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = cases("safe", n=3)
    of, values, stacked = lanes(group)
    original, rows = type(group[0].method).logits, list[int]()

    def logits(self: Any, params: Params, consts: Any, features: Any, values: Any) -> torch.Tensor:
        rows.append(len(next(iter(features.values()))))
        if rows[-1] > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, params, consts, features, values)

    monkeypatch.setattr(type(group[0].method), "logits", logits)
    monkeypatch.setattr(slices, "PROCESSOR", 1)
    monkeypatch.setitem(slices.TOGETHER, "cpu", 0 if alone else 1 << 30)
    judge = joined(group, of, 64 << 20)
    first = judge(stacked, values, range(3))
    assert rows == [20, 10, *[5] * (12 if alone else 4)]
    rows.clear()
    again = judge(stacked, values, range(3))
    assert rows == [5] * (12 if alone else 4)
    for one, other in zip(first, again, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_slices_change_no_choice_of_the_search() -> None:
    c = case("tip-adapter-f")
    fitted, grid = c.fit(), points(c.recipe.search)
    values = scored_values(c.method, fit_values(c.method, c.task.settings))
    chosen = [
        score.search(c.method, c.consts, fitted.params, values, grid, c.val, most)
        for most in (1, 300, slices.PROCESSOR)
    ]
    assert chosen[0] == chosen[1] == chosen[2] and len(grid) > 5
    assert chosen[0][1] == fitted.val_accuracy


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_lanes_are_scored_as_alone() -> None:
    group, head = list[Case](), dict[str, Any]()
    for c in cases("safe"):
        there = on(c, "cuda")
        task = replace(there.task, backbone=head.setdefault("it", there.task.backbone))
        group.append(replace(there, task=task, consts=c.method.prepare(task)))
    assert_as_alone(group, [0, 1, 2], slices.GPU)
    assert_as_alone(group, [2, 0], slices.GPU)
