"""A stand-in for a GPU that records steps, and the runs that tests send through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from bench.interface import Batch, Consts, Method, Params, Values, points, steps_of
from bench.train import loop, optim, rng, select
from bench.train.capture import Recording
from bench.train.keep import Trained
from tests.train.engine_cases import Case

LONG: dict[str, dict[str, Any]] = {
    "safe": {"steps": 40, "check_every": 7},
    "cross-modal-linear": {"steps": 40, "check_every": 7, "batch": (4,)},
    "linear-probe-sgd": {"steps": 40, "check_every": 7},
    "tip-adapter-f": {"epochs": 14},  # 20 rows in batches of 7: a last one of 6
}


@dataclass
class Recorder:
    """Stands for a GPU: a replay makes the step again on the tensors that it was recorded with."""

    warmed: int = 0
    replays: list[int] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    fail: Exception | None = None
    waits: str = ""

    def warm(self, step: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, str]:
        self.warmed += 1
        return step(), self.waits

    def capture(self, step: Callable[[], torch.Tensor]) -> Recording:
        if self.fail:
            raise self.fail
        loss_R = torch.empty(0, dtype=torch.float64)
        self.replays.append(0)
        mine = len(self.replays) - 1

        def replay() -> None:
            self.replays[mine] += 1
            loss = step()
            loss_R.resize_(loss.shape).copy_(loss)

        return Recording(replay, loss_R, lambda: self.released.append(mine))


class Noisy(Method):
    """Draws from the batch's noise, twice, as dropout in two layers does."""

    name, title = "noisy", "Noisy"

    def __init__(self, inner: Case) -> None:
        self.inner = inner.method

    def losses(self, params: Params, consts: Consts, batch: Batch, values: Values) -> dict[str, torch.Tensor]:
        loss = self.inner.losses(params, consts, batch, values)["loss"]
        a, b = (torch.rand((), generator=batch.noise, dtype=torch.float64) for _ in range(2))
        return {"loss": loss * (1.0 + a - b)}

    def logits(self, params: Params, consts: Consts, features: Any, values: Values) -> torch.Tensor:
        return self.inner.logits(params, consts, features, values)


def prepared(c: Case) -> tuple[Values, list[dict[str, float]], list[Params]]:
    settings = {**c.task.settings, **{axis: v[0] for axis, v in c.recipe.static.items()}}
    values = points(c.recipe.grid)
    init = c.method.inner.init if isinstance(c.method, Noisy) else c.method.init
    return (
        settings,
        values,
        [init(c.task, c.consts, {**settings, **v}, rng.generator(1, "init")) for v in values],
    )


def train(c: Case) -> Trained:
    settings, values, start = prepared(c)
    score = select.scorer(c.method, c.recipe, c.consts, settings, c.val)
    return loop.train(c.method, c.recipe, c.consts, start, values, settings, c.pools, 1, score)


def plain(c: Case) -> tuple[Params, list[list[float]]]:
    """The last step's parameters and every step's losses: step after step, nothing prepared ahead."""
    assert c.recipe.optim is not None
    settings, values, start = prepared(c)
    params, axes = loop.stack(start), loop.axes_of(values, c.recipe, torch.device("cpu"), torch.float64)
    per_epoch = loop.epoch_length(c.recipe.streams, c.pools)
    steps = steps_of(c.recipe, per_epoch)
    rates = loop.rate_table(c.recipe, values, settings, steps, per_epoch)
    optimiser = optim.make(c.recipe.optim, params, [v["wd"] for v in values])
    losses = []
    for step, drawn in enumerate(loop.orders(c.recipe.streams, c.pools, 1, steps)[1]):
        rows = {
            name: loop.gather(c.pools[name], at, torch.device("cpu"), torch.float64)
            for name, at in drawn.items()
        }
        batch = Batch(rows, step, rng.generator(1, "noise", step))
        loss_R, grads = loop.gradients(c.method, c.consts, params, batch, settings, axes)
        optimiser.step(grads, rates[step])
        losses.append(loss_R.tolist())
    return params, losses


def same(one: Trained, other: Trained) -> None:
    """Bit for bit."""
    for name in ("score", "step", "curve", "steps", "losses"):
        assert getattr(one, name) == getattr(other, name), name
    assert all(torch.equal(p, other.params[name]) for name, p in one.params.items())


def replace_recipe(c: Case, **changes: Any) -> Case:
    return replace(c, recipe=replace(c.recipe, **changes))
