"""A grid point whose logits are no numbers is never chosen, although their arg-max is right by chance."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.interface import POOLED, Method, Params
from bench.recipe import Recipe
from bench.train import select
from bench.train.keep import Keeper
from bench.train.select import Labelled


@pytest.mark.parametrize("criterion", ["accuracy", "loss"])
def test_a_diverged_replica_keeps_what_it_had(criterion: str) -> None:
    live = {"w": torch.tensor([[1.0], [2.0]])}
    keeper = Keeper(live, criterion, None)
    keeper.offer(0, torch.tensor([0.25, 0.5]), torch.tensor([-2.0, math.nan]))
    live["w"].fill_(9.0)
    keeper.offer(1, torch.tensor([1.0, 0.5]), torch.tensor([math.nan, math.nan]))
    assert keeper.step == [0, -1] and keeper.score[1] == -math.inf
    assert keeper.params["w"][0] == 1.0


class Solved(Method):
    """Right about nothing where ``c`` is 1, no numbers where it is 2."""

    name = "solved"
    title = "Solved"

    def solve(self, task: Any, consts: Any, values: Any) -> Params:
        return {"bias_K": torch.tensor([0.0, 1.0]) if values["c"] == 1.0 else torch.full((2,), math.nan)}

    def logits(self, params: Any, consts: Any, features: Any, values: Any) -> Tensor:
        return features[POOLED] * 0.0 + params["bias_K"]


def test_a_solution_without_numbers_is_not_chosen() -> None:
    task: Any = SimpleNamespace(settings={}, seed=1)
    val = Labelled({POOLED: torch.ones(2, 2)}, torch.zeros(2, dtype=torch.long))
    recipe = Recipe(grid={"c": (2.0, 1.0)})
    fitted = select.fit(Solved(), recipe, task, {}, {}, val)
    assert fitted.values == {"c": 1.0} and fitted.val_accuracy == 0.0
