"""Keep the best checkpoint of each replica while parameters move, and decide when training stops.

Legend: R replicas.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bench.interface import Features, Params, Values
from bench.recipe import Recipe

# (stacked replicas, their values) -> validation accuracy and negative loss, (R,) each.
Scorer = Callable[[Params, Sequence[Values]], tuple[Tensor, Tensor]]
# The same for the lanes of these numbers, from the whole stack (G * R, ...).
LaneScorer = Callable[[Params, Sequence[Values], Sequence[int]], list[tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class Labelled:
    """Raw features of labelled images, one tensor (n, ...) per tap, and their classes (n,)."""

    features: Features
    y: Tensor


@dataclass
class Trained:
    """The outcome of a group of replicas.

    ``params``: the chosen checkpoint of every replica, (R, ...). ``score``: its criterion, larger is better
    (R,). ``step``: the 0-based step after which it was taken. ``curve``: (step, accuracy per replica) of
    every check; ``losses``: (step, training loss per replica). ``steps``: how many were made. ``graphs``: how
    many shapes of batches had their step recorded and replayed; ``eager``: why others had not, on a device
    that can record.
    """

    params: Params
    score: list[float]
    step: list[int]
    curve: list[tuple[int, list[float]]] = field(default_factory=list)
    steps: int = 0
    losses: list[tuple[int, list[float]]] = field(default_factory=list)
    graphs: int = 0
    eager: str = ""


def read(lanes: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Move what a check found of several lanes, tensors (R,) each, to the processor in one transfer."""
    found = torch.stack([torch.stack([x.detach().double() for x in lane]) for lane in lanes]).cpu()
    return [list(lane) for lane in found]


class Track:
    """The checks, the kept checkpoints and the end of one lane while its parameters move.

    ``checked``: whether it has validation images to choose by.
    """

    def __init__(self, params: Params, checked: bool, recipe: Recipe) -> None:
        self.best = recipe.select == "best" and checked
        self.keeper = Keeper(params, recipe.criterion, recipe.patience)
        self.out = Trained({}, [], [])

    @property
    def over(self) -> bool:
        """Return whether further steps change nothing that is kept."""
        return self.best and self.keeper.over

    def check(self, step: int, accuracy_R: Tensor, gain_R: Tensor, loss_R: Tensor) -> None:
        """Keep those live parameters that improved. The tensors given lie on the processor."""
        self.out.curve.append((step, accuracy_R.tolist()))
        self.out.losses.append((step, loss_R.tolist()))
        self.keeper.offer(step, accuracy_R, gain_R)

    def finish(self, recorded: int, eager: str, accuracy_R: Tensor, gain_R: Tensor) -> Trained:
        """Return the outcome; without best checkpoints, that of the last step with the scores given."""
        out, keeper = self.out, self.keeper
        if not self.best:
            keeper.offer(out.steps - 1, accuracy_R, gain_R)
            out.curve.append((out.steps - 1, accuracy_R.tolist()))
        out.params, out.score, out.step = keeper.params, keeper.score.tolist(), keeper.step
        out.graphs, out.eager = recorded, eager
        return out


class Keeper:
    """The best checkpoint of every replica.

    Only strict improvement counts, so ties keep the earliest (protocol 6.2). A replica whose ``patience`` ran
    out improves no more, so what it keeps does not depend on the other replicas.
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
        """Return whether no replica can improve any more."""
        return bool((self.stale >= self.patience).all())

    def offer(self, step: int, accuracy_R: Tensor, gain_R: Tensor) -> None:
        """Take the live tensors of the replicas that improved."""
        now = (gain_R if self.criterion == "loss" else accuracy_R).double().cpu()
        # A diverged replica never wins: if logits are not numbers, the arg-max is right by chance.
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
