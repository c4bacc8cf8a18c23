"""What is kept while parameters move: validation checks, each replica's best checkpoint, when to stop.

Legend: R replicas.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bench.interface import Params, Values
from bench.recipe import Recipe

Scorer = Callable[[Params, Sequence[Values]], tuple[Tensor, Tensor]]


@dataclass
class Trained:
    """The outcome of a group of replicas.

    ``params``: chosen checkpoint of every replica, (R, ...). ``score``: its criterion, larger is better (R,).
    ``step``: the 0-based step after which it was taken. ``curve``: (step, accuracy per replica) of every
    check. ``steps``: steps made. ``graphs``: shapes of batches whose step was recorded and replayed;
    ``eager``: why others were not, on a device that can.
    """

    params: Params
    score: list[float]
    step: list[int]
    curve: list[tuple[int, list[float]]] = field(default_factory=list)
    steps: int = 0
    losses: list[tuple[int, list[float]]] = field(default_factory=list)
    graphs: int = 0
    eager: str = ""


class Track:
    """What becomes of a lane while its parameters move: checks, the checkpoints kept, the end."""

    def __init__(
        self, params: Params, score: Scorer | None, values: Sequence[Values], recipe: Recipe
    ) -> None:
        self.params, self.score, self.values = params, score, values
        self.best = recipe.select == "best" and score is not None
        self.keeper = Keeper(params, recipe.criterion, recipe.patience)
        self.out = Trained({}, [], [])

    @property
    def over(self) -> bool:
        """Whether further steps change nothing that is kept."""
        return self.best and self.keeper.over

    def check(self, step: int, loss_R: Tensor) -> None:
        """Score the live parameters and keep those that improved."""
        assert self.score is not None
        accuracy_R, gain_R = self.score(self.params, self.values)
        self.out.curve.append((step, accuracy_R.tolist()))
        self.out.losses.append((step, loss_R.tolist()))
        self.keeper.offer(step, accuracy_R, gain_R)

    def finish(self, recorded: int, eager: str) -> Trained:
        """The outcome; where nothing was checked, that of the last step."""
        out, keeper = self.out, self.keeper
        if not self.best:
            final = (
                self.score(self.params, self.values) if self.score else (torch.zeros(len(self.values)),) * 2
            )
            keeper.offer(out.steps - 1, *final)
            out.curve.append((out.steps - 1, final[0].tolist()))
        out.params, out.score, out.step = keeper.params, keeper.score.tolist(), keeper.step
        out.graphs, out.eager = recorded, eager
        return out


class Keeper:
    """Every replica's best checkpoint: strict improvement only, so ties keep the earliest (protocol 6.2).

    A replica whose ``patience`` ran out improves no more, so what it keeps does not depend on its company.
    """

    def __init__(self, params: Params, criterion: str, patience: int | None) -> None:
        self.live, self.criterion = params, criterion
        self.params = {name: p.detach().clone() for name, p in params.items()}
        R = len(next(iter(params.values())))
        self.score = torch.full((R,), float("-inf"), dtype=torch.float64)
        self.step = [-1] * R
        self.patience = float("inf") if patience is None else patience
        self.stale = torch.zeros(R)

    @property
    def over(self) -> bool:
        """Whether no replica can improve any more."""
        return bool((self.stale >= self.patience).all())

    def offer(self, step: int, accuracy_R: Tensor, gain_R: Tensor) -> None:
        """Take the live tensors of the replicas that improved."""
        now = (gain_R if self.criterion == "loss" else accuracy_R).double().cpu()
        # A diverged replica never wins: where logits are no numbers the arg-max is right by chance.
        now = torch.where(now.isnan() | gain_R.isnan().cpu(), -math.inf, now)
        improved = (now > self.score) & (self.stale < self.patience)
        better = improved.nonzero()[:, 0].tolist()
        self.stale = torch.where(improved, 0.0, self.stale + 1)
        self.score = torch.where(improved, now, self.score)
        with torch.no_grad():
            for r, name in itertools.product(better, self.live):
                self.params[name][r].copy_(self.live[name][r])
        for r in better:
            self.step[r] = step
