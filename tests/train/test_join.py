"""Tasks trained together equal tasks trained alone in parameters and choices, or stay apart and say why."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.clip.blocks import product
from bench.interface import Batch, Consts, Method, Params, Recipe, Stream, Values
from bench.recipe import Schedule
from bench.train import graphs, join, loop, rng, select, span, waves
from tests.methods.support import StandIn, make_task, method, tiny_tower
from tests.train.engine_cases import OVERRIDES, Case, case, on
from tests.train.test_fused import assert_same
from tests.train.test_graphs import Recorder

NAMES = [*sorted(OVERRIDES)]
RESTART = ["cross-modal", "cross-modal-linear", "linear-probe-sgd", "safe"]  # fixed steps and batches


def cases(name: str, n: int = 3, **more: Any) -> list[Case]:
    group = [case(name, seed=seed, **more) for seed in range(1, n + 1)]
    assert not torch.equal(group[0].pools["image"].x, group[1].pools["image"].x)
    return [replace(c, method=group[0].method) for c in group]


def shots(name: str, seeds: tuple[int, ...] = (1, 2), **more: Any) -> list[Case]:
    """Tasks with 2 and with 4 images a class."""
    group = [case(name, seed=seed, shots=n, **more) for n in (2, 4) for seed in seeds]
    assert len({c.pools["image"].images for c in group}) == 2
    return [replace(c, method=group[0].method) for c in group]


def together(group: list[Case]) -> list[select.Fitted]:
    given = [select.Case(c.task, c.consts, c.pools, c.val) for c in group]
    return select.fit_joined(group[0].method, group[0].recipe, given)


def assert_as_alone(group: list[Case], joined: list[select.Fitted]) -> None:
    alone = [c.fit() for c in group]
    flat = [torch.cat([p.flatten() for p in a.params.values()]) for a in alone]
    assert not any(torch.equal(a, b) for a, b in pairwise(flat)), "the seeds do differ"
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


@pytest.mark.parametrize("name", RESTART)
def test_shots_join_where_no_step_shows_them(name: str) -> None:
    group = shots(name)
    assert_as_alone(group, together(group))


def test_shots_stop_by_their_own_patience() -> None:
    group = shots("safe", seeds=(1,), steps=40, check_every=1, patience=2, lr=(3e-2, 1e-7))
    joined = together(group)
    first, second = (f.budget["steps"] for f in joined)
    assert first != second and min(first, second) < 2 * 40
    assert_as_alone(group, joined)


def test_what_follows_epochs_is_each_lanes_own() -> None:
    """Rates and checks by epoch, where epochs differ in length and runs do not."""
    group = shots("linear-probe-sgd", batch=(5,))
    changes: dict[str, Any] = {"steps": 14, "check_every": None, "schedule": Schedule("dassl")}
    group = [replace(c, recipe=replace(c.recipe, **changes)) for c in group]
    joined = together(group)
    lengths = [loop.epoch_length(c.recipe.streams, c.pools) for c in group]
    assert lengths == [4, 4, 8, 8]
    for f, per_epoch in zip(joined, lengths, strict=True):
        assert [step for step, _ in f.curve[0]["checks"]] == list(range(per_epoch - 1, 14, per_epoch))
    assert_as_alone(group, joined)


def test_without_validation_the_last_step_is_kept() -> None:
    group = [
        replace(
            c,
            val=None,
            recipe=replace(c.recipe, grid={"lr": (1e-2,), "wd": (0.0,)}, static={}, select="last"),
        )
        for c in cases("linear-probe-sgd")
    ]
    for c, joined in zip(group, together(group), strict=True):
        torch.testing.assert_close(joined.params["W_KC"], c.fit().params["W_KC"], rtol=1e-9, atol=1e-12)


def test_waves_of_joined_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    group = cases("cross-modal-linear", n=2)
    whole = together(group)
    each = waves.bytes_per_replica({"W_KC": group[0].task.W_KC}, group[0].recipe)
    monkeypatch.setattr(waves, "free_bytes", lambda device: int(2 * 2 * each / waves.SHARE))
    split = together(group)
    # two batch sizes, two replicas of two tasks a wave
    assert split[0].budget["waves"] == 4 and "waves" not in whole[0].budget
    for c, one, other in zip(group, whole, split, strict=True):
        assert_same(c, one, other)


@pytest.mark.parametrize(("name", "recorded"), [("tip-adapter-f", 2), ("safe", 1)])
def test_joined_steps_are_recorded_too(name: str, recorded: int, monkeypatch: pytest.MonkeyPatch) -> None:
    group = cases(name, epochs=14) if name == "tip-adapter-f" else shots(name, steps=40)
    plain, recorder = together(group), Recorder()
    monkeypatch.setattr(graphs, "capturer", lambda device: recorder)
    for one, other in zip(plain, together(group), strict=True):
        assert other.budget["graphs"] == recorded and one.curve == other.curve
        assert all(torch.equal(p, other.params[key]) for key, p in one.params.items())


@pytest.mark.parametrize("name", ["coop", "prograd"])
def test_learned_prompts_join(name: str) -> None:
    """The text tower is shared, its packed rows are equal objects, contexts differ by seed."""
    words = ("tabby cat", "pizza", "art nouveau lamp")
    made, backbone = (
        method(name),
        StandIn(text=tiny_tower([f"{w}." for w in words], width=8, C=6, layers=1), scale=20.0),
    )
    raw_PC = backbone.encode_text([f"a photo of a {w}." for w in words])
    group = []
    for seed in (1, 2):
        y, g = torch.arange(3).repeat(2), rng.generator(seed, "images")
        x = raw_PC[y].repeat(2, 1) + torch.randn(12, 6, generator=g, dtype=torch.float64)
        task = make_task(
            made,
            y,
            raw_PC,
            classnames=words,
            backbone=backbone,
            scale=20.0,
            overrides={"epochs": 4, "batch": 4, "context": 2, "views": 2, "lr": (0.1, 0.01)},
        )
        task = replace(task, seed=seed)
        recipe, val = made.recipe(task.settings, task.facts), select.Labelled({"pooled": x[:6]}, y)
        group.append(
            Case(
                made, recipe, task, made.prepare(task), {"image": loop.Pool(x, y, 2)}, val, {"pooled": x[6:]}
            )
        )
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
        return {
            "loss": self.inner.losses(params, consts, batch, values)["loss"]
            * torch.rand((), generator=batch.noise)
        }


def test_what_stays_apart_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    group = cases("linear-probe-sgd", n=2)
    with pytest.raises(join.Apart, match="draw noise of their own seed"):
        together([replace(c, method=Noisy(group[0].method)) for c in group])
    image = group[1].pools["image"]
    narrow = replace(group[1], pools={"image": replace(image, x=image.x[:, :-1])})
    with pytest.raises(join.Apart, match="the rows of stream 'image' differ in shape"):
        together([group[0], narrow])
    tuned = loop.Lane({}, [{"W": torch.zeros(2)}], group[1].pools, 1, None)
    with pytest.raises(join.Apart, match="what is trained differs in shape"):
        join.check(group[0].recipe, [tuned, replace(tuned, start=[{"W": torch.zeros(3)}])])
    keyed = [
        replace(c, consts={**c.consts, "keys_N": torch.zeros(c.pools["image"].images)})
        for c in shots("linear-probe-sgd")
    ]
    with pytest.raises(join.Apart, match="the constants 'keys_N' differ in shape"):
        together(keyed)
    with pytest.raises(join.Apart, match="stream 'image' has batches of different sizes"):
        together(shots("tip-adapter-f"))
    monkeypatch.setattr(type(group[0].method), "fuse", False)
    with pytest.raises(join.Apart, match="one after the other"):
        together(group)


@pytest.mark.parametrize(
    ("order", "batch", "sizes", "length", "says"),
    [
        ("restart", 8, [(9, 1), (40, 1)], {"steps": 5}, ""),
        ("restart", 8, [(3, 4), (40, 1)], {"steps": 5}, ""),
        ("restart", 8, [(8, 1), (40, 1)], {"steps": 5}, "stream 'image' cannot draw 8 of 8 rows"),
        ("restart", 8, [(16, 1), (40, 1)], {"epochs": 2}, "their runs have 4 and 10 steps"),
        ("epoch-keep", 8, [(16, 1), (40, 1)], {"steps": 5}, ""),
        ("epoch-keep", 8, [(20, 1), (20, 1)], {"epochs": 2}, ""),
        ("epoch-keep", 8, [(16, 1), (20, 1)], {"steps": 5}, "stream 'image' has batches of different sizes"),
        ("epoch-keep", 8, [(20, 1), (28, 1)], {"steps": 5}, "stream 'image' has batches of different sizes"),
        ("epoch-drop", 8, [(9, 1), (44, 1)], {"steps": 5}, ""),
        ("epoch-drop", 8, [(7, 1), (44, 1)], {"steps": 5}, "stream 'image' has batches of different sizes"),
        ("images", 8, [(3, 4), (40, 1)], {"steps": 5}, ""),
        ("images", 8, [(3, 4), (40, 1)], {"epochs": 2}, "their runs have 2 and 10 steps"),
        ("images", 8, [(3, 1), (40, 1)], {"steps": 5}, "stream 'image' has batches of different sizes"),
        ("full", None, [(9, 1), (40, 1)], {"steps": 5}, "stream 'image' has batches of different sizes"),
        ("full", None, [(9, 1), (3, 3)], {"steps": 5}, ""),
    ],
)
def test_batch_rules_say_which_sizes_join(
    order: str, batch: int | None, sizes: list[span.Size], length: dict[str, Any], says: str
) -> None:
    recipe = Recipe({"image": Stream(order=order, batch=batch)}, **length)
    assert span.apart(recipe, [{"image": size} for size in sizes]) == says


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
        (
            loop.Pool(torch.zeros(2), torch.zeros(2)),
            loop.Pool(torch.ones(2), torch.zeros(2)),
            "'a' hold tensors that differ",
        ),
    ],
)
def test_constants_that_cannot_be_joined(one: Any, other: Any, says: str) -> None:
    with pytest.raises(join.Apart, match=says):
        join.merged([{"a": one}, {"a": other}])


def test_constants_are_shared_or_stacked() -> None:
    thing, W = object(), torch.ones(2)
    lanes: list[dict[str, Any]] = [
        {
            "thing": thing,
            "W": W.clone(),
            "deep": {"pair": (torch.full((2,), float(g)), 3), "none": None},
            "made": loop.Pool(torch.ones(1), torch.ones(1), 2),
        }
        for g in range(3)
    ]
    shared, varying = join.merged(lanes)
    assert list(varying) == [("deep", "pair", 0)] and varying["deep", "pair", 0].shape == (3, 2)
    for g, lane in enumerate(lanes):
        own = join.placed(shared, {path: x[g] for path, x in varying.items()})
        assert own["thing"] is thing and torch.equal(own["deep"]["pair"][0], lane["deep"]["pair"][0])
        assert own["deep"]["pair"][1:] == (3,) and own["deep"]["none"] is None and torch.equal(own["W"], W)


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
    for a, b in zip(
        torch.autograd.grad(out.sin().sum(), (x, W)),
        torch.autograd.grad(plain.sin().sum(), (x, W)),
        strict=True,
    ):
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
