"""A batch in pieces has the losses and gradients of the whole batch, and draws nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch

from bench.errors import BenchError
from bench.interface import Batch, Consts, Facts, Method, Params, Recipe, Rows, Stream, Values
from bench.plan import asking
from bench.train import graphs, join, loop, rng
from tests.methods.support import batch_of
from tests.train.engine_cases import case
from tests.train.recorder import LONG, plain, replace_recipe, same, train
from tests.train.test_join import cases, together

B, R, D, K = 23, 3, 7, 4


class Two(Method):
    """Two losses that are means over rows, and a combination that is not linear in their gradients."""

    name, title, fuse = "two", "Two", True
    sizes: ClassVar[list[int]] = []

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, torch.Tensor]:
        rows = batch["image"]
        self.sizes.append(len(rows.y))
        scores = torch.log_softmax(rows.x @ params["w"], -1)
        near = (rows.x @ params["w"] - consts["t"][rows.index]).pow(2).mean() + params["b"].sum()
        return {"loss": -(scores * torch.eye(K).to(scores)[rows.y]).sum(-1).mean(), "near": near}

    def combine(self, grads: Mapping[str, Params], values: Values) -> Params:
        one, other = grads["loss"], grads["near"]
        part = (one["w"] * other["w"]).sum() / other["w"].pow(2).sum()
        return {name: one[name] - values["weight"] * part * other[name] for name in one}


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("micro", [1, 5, 8, 22])
def test_pieces_equal_the_whole(micro: int, fuse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    g = rng.generator(1, "pieces")

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    params = loop.stack([{"w": numbers(D, K), "b": numbers(2)} for _ in range(R)])
    consts, axes = {"t": 3 * numbers(B, K)}, {"weight": numbers(R)}
    batch = batch_of(numbers(B, D), torch.arange(B) % K)
    method = Two()
    monkeypatch.setattr(Two, "fuse", fuse)

    def step() -> tuple[torch.Tensor, Params, list[int]]:
        Two.sizes.clear()
        return *loop.gradients(method, consts, params, batch, {}, axes), list(Two.sizes)

    whole_R, whole, _ = step()
    monkeypatch.setattr(Two, "micro", micro)
    loss_R, grads, sizes = step()
    each = 1 if fuse else R
    assert sizes[::each] == [micro] * (B // micro) + ([B % micro] if B % micro else [])
    torch.testing.assert_close(loss_R, whole_R, rtol=1e-9, atol=0.0)
    for name, p in whole.items():
        torch.testing.assert_close(grads[name], p, rtol=1e-9, atol=1e-9 * float(p.abs().max()))
    alone = loop.derivatives(loop.losses_of(method, consts, params, batch, {}, axes), params)["loss"]
    assert not torch.equal(alone["w"], whole["w"]), "the losses are combined"


def test_a_run_in_pieces_is_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    c = case("linear-probe-sgd", **{**LONG["linear-probe-sgd"], "batch": (7,)})
    c = replace_recipe(c, select="last")
    whole = train(c)
    for micro in (7, 100):
        monkeypatch.setattr(type(c.method), "micro", micro)
        same(train(c), whole)
    monkeypatch.setattr(type(c.method), "micro", 3)
    trained = train(c)
    for name, p in whole.params.items():
        torch.testing.assert_close(trained.params[name], p, rtol=1e-9, atol=1e-12)
        assert torch.equal(plain(c)[0][name].detach(), trained.params[name])


@pytest.mark.parametrize("asked", ["noise", "bytes"])
def test_pieces_have_no_randomness(asked: str) -> None:
    rows = {"image": Rows(torch.zeros(5, 2), torch.zeros(5, dtype=torch.long), torch.arange(5))}
    batch = graphs.WatchedBatch(rows, 3, graphs.Host(lambda step: rng.generator(1, "noise", step)))
    pieces = batch.pieces(2)
    assert [share for share, _ in pieces] == [0.4, 0.4, 0.2]
    assert [piece.again()["image"].index.tolist() for _, piece in pieces] == [[0, 1], [2, 3], [4]]
    assert pieces[1][1].step == 3
    with pytest.raises(BenchError, match=f"batch.{asked} of a batch in pieces"):
        _ = piece_of(pieces[1][1].again(), asked)
    ((share, same_batch),) = batch.pieces(5)
    assert share == 1.0 and same_batch is batch and piece_of(same_batch, asked) is not None


def piece_of(batch: graphs.WatchedBatch, asked: str) -> Any:
    return batch.bytes(2) if asked == "bytes" else batch.noise


def test_pieces_keep_tasks_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    group = cases("linear-probe-sgd", n=2)
    monkeypatch.setattr(type(group[0].method), "micro", 3)
    with pytest.raises(join.Apart, match="in pieces"):
        together(group)


def test_pieces_of_several_streams_are_refused_while_planning() -> None:
    class Many(Two):
        micro = 4

        def recipe(self, settings: Values, facts: Facts) -> Recipe:
            return Recipe(streams={"image": Stream(batch=8), "text": Stream(batch=8)})

    facts = Facts(2, 3, 6, 3, "default", "rn", "paper")
    with pytest.raises(asking.Unplanned, match="two has 2 streams; micro is for recipes of one"):
        asking.recipe(Many(), {}, facts, "recipe", plugin=True)
