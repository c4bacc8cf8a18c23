"""Tasks trained together equal tasks trained alone in every parameter and choice, or stay apart and say why."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.clip.blocks import product
from bench.interface import Batch, Consts, Method, Params, Values
from bench.train import graphs, join, loop, rng, select, waves
from tests.methods.support import StandIn, make_task, method, tiny_tower
from tests.train.engine_cases import OVERRIDES, Case, case, on
from tests.train.test_fused import assert_same
from tests.train.test_graphs import Recorder

NAMES = [*sorted(OVERRIDES)]


def cases(name: str, n: int = 3, **more: Any) -> list[Case]:
    found = [case(name, seed=seed, **more) for seed in range(1, n + 1)]
    assert not torch.equal(found[0].pools["image"].x, found[1].pools["image"].x)
    return [replace(c, method=found[0].method) for c in found]


def together(group: list[Case]) -> list[select.Fitted]:
    given = [select.Case(c.task, c.consts, c.pools, c.val) for c in group]
    return select.fit_joined(group[0].method, group[0].recipe, given)


def assert_as_alone(group: list[Case], joined: list[select.Fitted]) -> None:
    alone = [c.fit() for c in group]
    found = [torch.cat([p.flatten() for p in a.params.values()]) for a in alone]
    assert not any(torch.equal(a, b) for a, b in pairwise(found)), "the seeds do differ"
    for c, one, other in zip(group, alone, joined, strict=True):
        assert_same(c, one, other)
        assert one.budget == other.budget and one.curve == other.curve
        for key, p in one.params.items():
            torch.testing.assert_close(other.params[key], p, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_joined_equals_separate(name: str) -> None:
    group = cases(name)
    assert_as_alone(group, together(group))


def test_a_single_replica_joins_too() -> None:
    group = cases("cross-modal-linear", lr=(1e-2,), wd=(0.1,), batch=(4,))
    assert_as_alone(group, together(group))


def test_lanes_stop_by_their_own_patience() -> None:
    group = cases("safe", steps=40, check_every=1, patience=2, lr=(3e-2, 1e-7))
    joined = together(group)
    assert len({f.budget["steps"] for f in joined}) > 1, "the seeds stop at different steps"
    assert_as_alone(group, joined)


def test_without_validation_the_last_step_is_kept() -> None:
    group = [replace(c, val=None, recipe=replace(c.recipe, grid={"lr": (1e-2,), "wd": (0.0,)}, static={}, select="last"))
             for c in cases("linear-probe-sgd")]  # fmt: skip
    for c, joined in zip(group, together(group), strict=True):
        torch.testing.assert_close(joined.params["W_KC"], c.fit().params["W_KC"], rtol=1e-9, atol=1e-12)


def test_waves_of_joined_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    group = cases("cross-modal-linear", n=2)
    whole = together(group)
    each = waves.bytes_per_replica({"W_KC": group[0].task.W_KC}, group[0].recipe)
    monkeypatch.setattr(waves, "free_bytes", lambda device: int(2 * 2 * each / waves.SHARE))
    split = together(group)
    assert split[0].budget["waves"] == 4 and "waves" not in whole[0].budget  # two batch sizes, two replicas of two tasks a wave
    for c, one, other in zip(group, whole, split, strict=True):
        assert_same(c, one, other)


def test_joined_steps_are_recorded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    group = cases("tip-adapter-f", epochs=14)
    plain, recorder = together(group), Recorder()
    monkeypatch.setattr(graphs, "capturer", lambda device: recorder)
    for one, other in zip(plain, together(group), strict=True):
        assert other.budget["graphs"] == 2 and one.curve == other.curve
        assert all(torch.equal(p, other.params[key]) for key, p in one.params.items())


@pytest.mark.parametrize("name", ["coop", "prograd"])
def test_learned_prompts_join(name: str) -> None:
    """The text tower is shared, its packed rows are equal objects, contexts differ by seed."""
    words = ("tabby cat", "pizza", "art nouveau lamp")
    made, backbone = method(name), StandIn(text=tiny_tower([f"{w}." for w in words], width=8, C=6, layers=1), scale=20.0)
    raw_PC = backbone.encode_text([f"a photo of a {w}." for w in words])
    group = []
    for seed in (1, 2):
        y, g = torch.arange(3).repeat(2), rng.generator(seed, "images")
        x = raw_PC[y].repeat(2, 1) + torch.randn(12, 6, generator=g, dtype=torch.float64)
        task = make_task(made, y, raw_PC, classnames=words, backbone=backbone, scale=20.0,
                         overrides={"epochs": 4, "batch": 4, "context": 2, "views": 2, "lr": (0.1, 0.01)})  # fmt: skip
        task = replace(task, seed=seed)
        recipe, val = made.recipe(task.settings, task.facts), select.Labelled({"pooled": x[:6]}, y)
        group.append(Case(made, recipe, task, made.prepare(task), {"image": loop.Pool(x, y, 2)}, val, {"pooled": x[6:]}))
    assert_as_alone(group, together(group))


class TwoLosses(Method):
    """Two losses whose gradients the method joins replica by replica."""

    name, title = "two-losses", "Two losses"

    def __init__(self, inner: Method) -> None:
        self.inner = inner

    def init(self, *given: Any) -> Params:
        return self.inner.init(*given)

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, torch.Tensor]:
        far = sum(p.square().sum() for p in params.values())
        return {**self.inner.losses(params, consts, batch, values), "size": far}  # type: ignore[dict-item]

    def combine(self, grads: Any, values: Values) -> Params:
        g, h = grads["loss"], grads["size"]
        dot = sum((g[k] * h[k]).sum() for k in g)
        return {k: torch.where(dot < 0, g[k] - values["lr"] * h[k], g[k]) for k in g}

    def logits(self, *given: Any) -> torch.Tensor:
        return self.inner.logits(*given)


def test_methods_that_combine_gradients_join() -> None:
    group = cases("linear-probe-sgd")
    method = TwoLosses(group[0].method)
    group = [replace(c, method=method) for c in group]
    assert_as_alone(group, together(group))


class Noisy(TwoLosses):
    """Draws noise."""

    combine = Method.combine

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, torch.Tensor]:
        return {"loss": self.inner.losses(params, consts, batch, values)["loss"] * torch.rand((), generator=batch.noise)}


def test_what_stays_apart_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    group = cases("linear-probe-sgd", n=2)
    with pytest.raises(join.Apart, match="draw noise of their own seed"):
        together([replace(c, method=Noisy(group[0].method)) for c in group])
    image = group[1].pools["image"]
    short = replace(group[1], pools={"image": loop.Pool(image.x[:-2], image.y[:-1], 2)})
    with pytest.raises(join.Apart, match="support sets differ in shape"):
        together([group[0], short])
    monkeypatch.setattr(type(group[0].method), "fuse", False)
    with pytest.raises(join.Apart, match="one after the other"):
        together(group)


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        (torch.zeros(2), torch.zeros(3), "'a' differ in shape"),
        (torch.zeros(2), torch.zeros(2).double(), "'a' differ in shape"),
        (1.0, 2.0, "'a' are not tensors and differ"),
        (SimpleNamespace(), SimpleNamespace(), "'a' are not tensors and differ"),
        (1, None, "'a' are of several kinds"),
        ({"b": (1, "x")}, {"b": (1, "y")}, "'a.b.1' are not tensors and differ"),
        ({"b": 1}, {"c": 1}, "'a' have different entries"),
        ([1], [1, 2], "'a' have different lengths"),
        (loop.Pool(torch.zeros(2), torch.zeros(2)), loop.Pool(torch.ones(2), torch.zeros(2)), "'a' hold tensors that differ"),
    ],
)
def test_constants_that_cannot_be_joined(one: Any, other: Any, says: str) -> None:
    with pytest.raises(join.Apart, match=says):
        join.merged([{"a": one}, {"a": other}])


def test_constants_are_shared_or_stacked() -> None:
    thing, W = object(), torch.ones(2)
    lanes: list[dict[str, Any]] = [
        {"thing": thing, "W": W.clone(), "deep": {"pair": (torch.full((2,), float(g)), 3), "none": None},
         "made": loop.Pool(torch.ones(1), torch.ones(1), 2)}
        for g in range(3)
    ]  # fmt: skip
    shared, varying = join.merged(lanes)
    assert list(varying) == [("deep", "pair", 0)] and varying["deep", "pair", 0].shape == (3, 2)
    for g, lane in enumerate(lanes):
        found = join.placed(shared, {path: x[g] for path, x in varying.items()})
        assert found["thing"] is thing and torch.equal(found["deep"]["pair"][0], lane["deep"]["pair"][0])
        assert found["deep"]["pair"][1:] == (3,) and found["deep"]["none"] is None and torch.equal(found["W"], W)


@pytest.mark.parametrize("G", [2, 3])
def test_products_map_over_lanes_and_replicas(G: int) -> None:
    """Also where lanes are as many as replicas, so that a wrong axis would fit."""
    R = 3
    x = torch.randn(G, 4, 5, generator=rng.generator(1, "x"), dtype=torch.float64, requires_grad=True)
    W = torch.randn(G, R, 2, 5, generator=rng.generator(1, "W"), dtype=torch.float64, requires_grad=True)

    def lanes(f: Any) -> Any:
        return torch.func.vmap(lambda x, W: torch.func.vmap(lambda w: f(x, w))(W))

    out, plain = lanes(product)(x, W), torch.einsum("gni,groi->grno", x, W)
    torch.testing.assert_close(out, plain)
    for a, b in zip(torch.autograd.grad(out.sin().sum(), (x, W)), torch.autograd.grad(plain.sin().sum(), (x, W)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["safe", "tip-adapter-f", "cross-modal-linear"])
def test_cuda_joined_equals_separate(name: str) -> None:
    head: dict[str, Any] = {}
    group = []
    for c in cases(name):
        c = on(c, "cuda")
        head.setdefault("it", c.task.backbone)  # one backbone for all, as in a session
        task = replace(c.task, backbone=head["it"])
        group.append(replace(c, task=task, consts=c.method.prepare(task)))
    assert_as_alone(group, together(group))
