"""Head-only WiSE-FT has the right end points, and a ratio needs no new fit (protocol 7.2, 21.5)."""

from __future__ import annotations

import pytest
import torch

from bench.interface import State, Task, cosine_logits
from bench.plan import planner
from bench.plan.request import Request
from bench.registry import builtin
from bench.train import rng
from tests.methods.support import close, make_task, method, score

K, C = 3, 5


def fitted(name: str) -> tuple[Task, torch.Tensor, torch.Tensor]:
    """A WiSE task whose base has a random trained head; the head and some images."""
    g = rng.generator(0, "wise test")
    x_BC, raw_PC, W_KC = (torch.randn(n, C, generator=g, dtype=torch.float64) for n in (7, K, K))
    wise = method(name)
    (base,) = wise.after
    state = State({"W_KC": W_KC}, {"lr": 1e-3, "wd": 0.0, "batch": 8})
    return make_task(wise, torch.arange(K), raw_PC, states={base: state}), W_KC, x_BC


@pytest.mark.parametrize("name", ["wise-ft", "wise-ft-zs"])
def test_end_points_are_the_trained_and_the_zero_shot_head(name: str) -> None:
    task, W_KC, x_BC = fitted(name)
    wise = method(name)
    close(score(wise, task, {}, x_BC, ratio=0.0), cosine_logits(x_BC, W_KC, 100.0), rtol=1e-12)
    close(score(wise, task, {}, x_BC, ratio=1.0), cosine_logits(x_BC, task.W_KC, 100.0), rtol=1e-12)
    half_KC = 0.5 * W_KC + 0.5 * task.W_KC  # rows are not renormalised
    close(score(wise, task, {}, x_BC), cosine_logits(x_BC, half_KC, 100.0), rtol=1e-12)


def test_nothing_is_fitted_twice() -> None:
    """A plan of probe, ensemble and two ratios holds one training; the ensemble has no steps, no search."""
    asked = Request(
        methods=("linear-probe-sgd", "wise-ft"),
        datasets=("digits",),
        shots=(1,),
        seeds=(1,),
        backbones=("pocket-rn",),
        sweeps={"wise-ft": [{"ratio": 0.25}, {"ratio": 0.5}]},
    )
    fits = planner.make(asked, builtin()).fits
    assert sorted(f.cell.method for f in fits) == ["linear-probe-sgd", "wise-ft"]
    probe, wise = sorted(fits, key=lambda f: f.cell.method)
    assert wise.after["linear-probe-sgd"].key == probe.key
    assert wise.recipe.optim is None and not wise.recipe.search
    assert [e.values["ratio"] for e in wise.evaluations] == [0.25, 0.5]


def test_titles_say_that_only_the_head_is_mixed() -> None:
    assert method("wise-ft").title == "WiSE-FT (head)"
    assert (method("linear-probe-sgd").settings["init"], method("linear-probe-sgd-zs").settings["init"]) == (
        "random",
        "zeroshot",
    )
