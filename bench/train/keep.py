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
# (the whole stack (G * R, ...), the replicas' values, lanes) -> the same for each of these lanes.
LaneScorer = Callable[[Params, Sequence[Values], Sequence[int]], list[tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class Labelled:
    """Raw features of labelled images, one tensor (n, ...) per tap, and their classes (n,)."""

    features: Features
    y: Tensor


@dataclass
class Trained:
    """The result of training R replicas.

    ``params``: the chosen checkpoint of every replica, (R, ...). ``score``: the value of the criterion for
    it, larger is better (R,). ``step``: the 0-based step after which it was taken (R,). ``curve``: for every
    check (step, accuracy of each replica). ``losses``: for every check (step, training loss of each replica).
    ``steps``: the number of steps that were made. ``graphs``: for how many shapes of batches the step was
    recorded and replayed. ``eager``: on a device that can record, why other steps were not.
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
    """Move the results of a check, several tensors (R,) for each lane, to the processor in one transfer."""
    found = torch.stack([torch.stack([x.detach().double() for x in lane]) for lane in lanes]).cpu()
    return [list(lane) for lane in found]


class Track:
    """The state of one lane during training: its checks, its best checkpoints and whether it has ended.

    ``params``: the lane's live parameters, which training changes in place. ``checked``: whether the lane has
    validation images to choose by.
    """

    def __init__(self, params: Params, checked: bool, recipe: Recipe) -> None:
        self.best = recipe.select == "best" and checked
        self.keeper = Keeper(params, recipe.criterion, recipe.patience)
        self.out = Trained({}, [], [])

    @property
    def over(self) -> bool:
        """Return whether no further step can change what is kept."""
        return self.best and self.keeper.over

    def check(self, step: int, accuracy_R: Tensor, gain_R: Tensor, loss_R: Tensor) -> None:
        """Note a check and keep the live parameters of the replicas that improved.

        The tensors lie on the processor.
        """
        self.out.curve.append((step, accuracy_R.tolist()))
        self.out.losses.append((step, loss_R.tolist()))
        self.keeper.offer(step, accuracy_R, gain_R)

    def finish(self, recorded: int, eager: str, accuracy_R: Tensor, gain_R: Tensor) -> Trained:
        """Return the result of the lane.

        If the recipe keeps the last step, its checkpoint is that step's, with the scores given here.
        """
        out, keeper = self.out, self.keeper
        if not self.best:
            keeper.offer(out.steps - 1, accuracy_R, gain_R)
            out.curve.append((out.steps - 1, accuracy_R.tolist()))
        out.params, out.score, out.step = keeper.params, keeper.score.tolist(), keeper.step
        out.graphs, out.eager = recorded, eager
        return out


class Keeper:
    """The best checkpoint of every replica.

    Only strict improvement counts, so ties keep the earliest (protocol 6.2). A replica whose ``patience`` has
    run out keeps its checkpoint, so its result does not depend on how long the other replicas go on.
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
        """Return whether the patience of all replicas has run out."""
        return bool((self.stale >= self.patience).all())

    def offer(self, step: int, accuracy_R: Tensor, gain_R: Tensor) -> None:
        """Copy the live parameters of the replicas that improved."""
        now = (gain_R if self.criterion == "loss" else accuracy_R).double().cpu()
        # A diverged replica never wins: the arg-max of logits that are not numbers is right by chance.
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
