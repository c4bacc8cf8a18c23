"""Make the task of a planned fit, which holds everything that its method may learn from.

Its features and texts come from the session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bench.errors import BenchError
from bench.interface import (
    PREPARED,
    SUPPORT,
    TEXT,
    Consts,
    FitFacts,
    Recipe,
    State,
    Task,
    TextSide,
    fit_values,
)
from bench.plan.cells import TUNED, Planned
from bench.run import guard, tuned_prompts
from bench.run.session import Session, filled
from bench.train import pure
from bench.train.loop import Pool


@dataclass(frozen=True)
class Lent(Task):
    """A task that lends its backbone. If the method asks for it, the guard checks it afterwards."""

    lend: Callable[[str], None] = lambda part: None

    def __getattribute__(self, name: str) -> Any:
        if name in ("backbone", "head"):
            super().__getattribute__("lend")(guard.HEAD if name == "head" else guard.WHOLE)
        if name == "head":  # the base class would ask for the whole backbone
            return super().__getattribute__("backbone").head
        return super().__getattribute__(name)


def make(session: Session, fit: Planned, states: Mapping[str, State]) -> Task:
    """Return the task of a fit. Everything in it is covered by the fit's key.

    ``states``: the states that the fit reads, by role. The task owns its tensors: texts and states are
    copied, because other cells use them, and features and labels are made for it. The backbone is lent.
    """
    spec, dataset, train = fit.backbone, fit.dataset, fit.draw.train
    tower = session.backbone(spec)
    W_KC, side = text(session, fit, states)
    known: dict[tuple[str, str], pure.Watched] = {}

    def features(tap: str, view: str) -> Tensor:
        if (tap, view) not in known:
            x = session.features(spec, dataset, train.paths, view, tap)
            known[tap, view] = pure.watch(**{f"task.features('{tap}', '{view}')": x})
        pure.check(known[tap, view], "a function", fit.method)
        return known[tap, view][0][1]

    def slices(tap: str, view: str) -> Iterator[tuple[int, Tensor]]:
        return session.slices(spec, dataset, train.paths, view, tap)

    return Lent(
        facts=FitFacts.of(fit.facts),
        settings=fit_values(fit.method, deepcopy(dict(fit.settings))),
        labels_N=session.labels(train),
        W_KC=W_KC.clone(),
        scale=tower.scale,
        text=replace(side, raw_PC=side.raw_PC.clone(), class_of_P=side.class_of_P.clone()),
        features=features,
        slices=slices,
        backbone=tower,
        states={name: own(states[name]) for name in fit.method.after},
        seed=fit.cell.seed,
        device=session.device,
        lend=lambda part: session.guard.lend(tower, part, fit.method),
    )


def own(state: State) -> State:
    """Return a copy of a fitted state, so that a reader that writes into it harms nobody."""
    return State({name: p.clone() for name, p in state.params.items()}, deepcopy(state.values))


def text(session: Session, fit: Planned, states: Mapping[str, State]) -> tuple[Tensor, TextSide]:
    """Return the classifier W (K, C) of a fit's prompt set, and the text side of its task."""
    if fit.prompts.tuned_by:
        return tuned_prompts.tuned(session, fit, states[TUNED])
    if fit.prompts.select:
        return tuned_prompts.mined(session, fit)
    return session.encoded_text(fit.backbone, fit.prompts, fit.dataset.classnames)


def pools(session: Session, fit: Planned, task: Task, recipe: Recipe, consts: Consts) -> dict[str, Pool]:
    """Return the rows of every stream of a recipe for the fit's task.

    Raises BenchError for labels that name no class, because ``interface.cross_entropy`` would treat them as a
    class with logit 0.
    """
    pools: dict[str, Pool] = {}
    for name, stream in recipe.streams.items():
        if stream.source == PREPARED:
            x_VN: Tensor = consts[stream.tap]
            pools[name] = Pool(x_VN.flatten(0, 1), task.labels_N, len(x_VN))
        elif stream.source == TEXT:
            pools[name] = Pool(task.text.raw_PC, task.text.class_of_P)
        else:
            assert stream.source == SUPPORT, stream.source
            pools[name] = _support(session, fit, task, stream.tap, stream.views)
        _require_classes(fit, name, pools[name].y)
    return pools


def _require_classes(fit: Planned, stream: str, y_N: Tensor) -> None:
    """Raise BenchError if a label names no class."""
    K = len(fit.dataset.classnames)
    if len(y_N) and not 0 <= int(y_N.min()) <= int(y_N.max()) < K:
        raise BenchError(
            f"{fit.method.name}: labels of stream '{stream}' run from {int(y_N.min())} to {int(y_N.max())}, "
            f"but {fit.dataset.name} has classes 0 to {K - 1}"
        )


def _support(session: Session, fit: Planned, task: Task, tap: str, views: Sequence[str]) -> Pool:
    """Return the support features of a stream in half precision, as stored. Each batch is cast when drawn."""
    paths = fit.draw.train.paths
    pieces = (
        (v * len(paths) + start, x)
        for v, view in enumerate(views)
        for start, x in session.slices(fit.backbone, fit.dataset, paths, view, tap)
    )
    return Pool(filled(len(views) * len(paths), pieces, torch.half), task.labels_N, len(views))
