"""What the method of a planned fit may learn from, made of the session's features and texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

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
from bench.run import tuned_prompts
from bench.run.session import Session
from bench.train.loop import Pool


def make(session: Session, fit: Planned, states: Mapping[str, State]) -> Task:
    """The task of a fit: nothing that is not in the fit's key. ``states``: those that it reads, by role."""
    spec, dataset, train = fit.backbone, fit.dataset, fit.draw.train
    tower = session.backbone(spec)
    W_KC, side = text(session, fit, states)
    known: dict[tuple[str, str], Tensor] = {}

    def features(tap: str, view: str) -> Tensor:
        if (tap, view) not in known:
            known[tap, view] = session.features(spec, dataset, train.paths, view, tap)
        return known[tap, view]

    def slices(tap: str, view: str) -> Iterator[tuple[int, Tensor]]:
        return session.slices(spec, dataset, train.paths, view, tap)

    return Task(
        facts=FitFacts.of(fit.facts),
        settings=fit_values(fit.method, fit.settings),
        labels_N=session.labels(train),
        W_KC=W_KC,
        scale=tower.scale,
        text=side,
        features=features,
        slices=slices,
        backbone=tower,
        states={name: states[name] for name in fit.method.after},
        seed=fit.cell.seed,
        device=session.device,
    )


def text(session: Session, fit: Planned, states: Mapping[str, State]) -> tuple[Tensor, TextSide]:
    """The classifier W (K, C) of a fit's prompt set and the text side of its task."""
    if fit.prompts.tuned_by:
        return tuned_prompts.tuned(session, fit, states[TUNED])
    if fit.prompts.select:
        return tuned_prompts.mined(session, fit)
    return session.encoded_text(fit.backbone, fit.prompts, fit.dataset.classnames)


def pools(session: Session, fit: Planned, task: Task, recipe: Recipe, consts: Consts) -> dict[str, Pool]:
    """The rows of every stream of a recipe for the fit's task."""
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
    return pools


def _support(session: Session, fit: Planned, task: Task, tap: str, views: Sequence[str]) -> Pool:
    """Support features stay in half precision, as stored, and are cast batch by batch."""
    parts = [
        x.half()
        for view in views
        for _, x in session.slices(fit.backbone, fit.dataset, fit.draw.train.paths, view, tap)
    ]
    return Pool(torch.cat(parts), task.labels_N, len(views))
