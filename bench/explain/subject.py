"""Hold a CLIP before and after a fit, as functions of the dense tokens: the subject of every explanation.

Fits come from the records and states of ``bench run`` if these are there. Otherwise they are made in the same
way and kept.

Legend: B batch, T tokens, D tower width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.clip.backbone import Backbone, BackboneSpec
from bench.clip.blocks import Params
from bench.data.dataset import Dataset
from bench.errors import BenchError
from bench.executors import serial
from bench.interface import DENSE, POOLED, PREPROJ, TOKENS, Features, State, cosine_logits
from bench.plan import planner
from bench.plan.cells import Plan, Planned, chain
from bench.plan.request import Request
from bench.plan.todo import Todo, recorded
from bench.records import store
from bench.registry import Registry
from bench.run import evaluate, fit
from bench.run import task as tasks
from bench.run.desk import Desk
from bench.run.session import Session

_ROWS = 64  # images in one forward pass


@dataclass(frozen=True)
class Model:
    """A classifier on dense tokens, before or after a fit.

    ``head``: the pooling head's parameters. ``logits``: dense (B, T, D) to (B, K), differentiable.
    """

    name: str
    head: Params
    logits: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Subject:
    """Zero-shot CLIP, and the same CLIP after a method was fitted, with one model a seed."""

    tower: Backbone
    dataset: Dataset
    method: str
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    before: Model
    after: tuple[Model, ...]

    @property
    def models(self) -> tuple[Model, ...]:
        """Return the model before the fit, then those after it, seed by seed."""
        return (self.before, *self.after)


def subject(request: Request, registry: Registry, session: Session) -> Subject:
    """Return the models of one method on one dataset, with one backbone, one number of shots and any seeds.

    Raises BenchError if the cell cannot run here, or if the method reads more than the dense tokens.
    """
    planned = planner.make(request, registry)
    fits = [f for f in planned.fits if f.asked]
    if not fits:
        raise BenchError(
            "; ".join(b.reason for b in planned.blocked) or "nothing to explain: name --shots and --seeds"
        )
    name = fits[0].method.name
    if beyond := sorted(set(fits[0].method.taps) - {DENSE, POOLED, PREPROJ, TOKENS}):
        raise BenchError(
            f"{name} reads {', '.join(beyond)}, which comes before the dense map: "
            "choose another method, such as safe"
        )
    _fit_missing(planned, fits, request.results, registry, session)
    after, W_KC = [], None
    for f in fits:
        model, W_KC = _model(f, request.results, session)
        after.append(model)
    tower = session.backbone(fits[0].backbone)
    assert W_KC is not None
    head = tower.head
    before = Model(
        "zero-shot CLIP", head.params, lambda x: cosine_logits(head(head.params, x), W_KC, tower.scale)
    )
    seeds = tuple(f.cell.seed for f in fits)
    return Subject(tower, fits[0].dataset, name, seeds, tuple(f.key for f in fits), before, tuple(after))


def _fit_missing(
    planned: Plan, fits: list[Planned], results: Path, registry: Registry, session: Session
) -> None:
    """Fit what has no state yet.

    Methods that read the support images get them encoded even if the method is fitted already.
    """
    todo = [
        Todo(replace(f, evaluations=()), (), recorded(f))
        for f in fits
        if any(other.recipe.support or _stored(other, results, session) is None for other in chain(f))
    ]
    if todo:
        store.require_present(results)
        desk = Desk(session, registry, results, keep_states="all")
        outcome = serial.run(desk, planned, todo, lambda ended, *_: session.report(f"fitted {ended.said}"))
        if outcome.failures:
            cell, message, record = outcome.failures[0]
            raise BenchError(f"{cell}: {message}" + (f"; its record: {record}" if record else ""))


def _stored(f: Planned, results: Path, session: Session) -> State | None:
    record = recorded(f)
    return fit.load_state(results, f, record, session.device, session.report) if record else None


def _model(f: Planned, results: Path, session: Session) -> tuple[Model, Tensor]:
    """Return the fitted method as a model, and the classifier W (K, C) from which it started."""
    state = _stored(f, results, session)
    others = {name: _stored(other, results, session) for name, other in f.after.items()}
    assert state is not None and all(others.values()), "fits were made or loaded before"
    task = tasks.make(session, f, {name: s for name, s in others.items() if s is not None})
    consts = f.method.prepare(task)
    values = evaluate.values_of(f, f.evaluations[0], state.values)
    params, tower = state.params, session.backbone(f.backbone)

    def logits(x_BTD: Tensor) -> Tensor:
        return f.method.logits(params, consts, features(tower, f.method.taps, x_BTD), values)

    tuned = {name: p for name, p in params.items() if name in tower.head.params}
    return Model(f"{f.method.title}, seed {f.cell.seed}", {**tower.head.params, **tuned}, logits), task.W_KC


def features(tower: Backbone, taps: Iterable[str], x_BTD: Tensor) -> Features:
    """Return the taps behind ``dense``, computed from its tokens by the frozen head."""
    head, by_tap, wanted = tower.head, {DENSE: x_BTD}, set(taps)
    if wanted & {POOLED, PREPROJ}:
        by_tap[PREPROJ] = head.preproj(head.params, x_BTD)
        by_tap[POOLED] = head.project(head.params, by_tap[PREPROJ])
    if TOKENS in wanted:
        by_tap[TOKENS] = head.all_tokens(head.params, x_BTD)
    return by_tap


def normalised(pixels_BHWC: np.ndarray, spec: BackboneSpec) -> Tensor:
    """Return uint8 pixels (B, S, S, 3) as the tower's input (B, 3, S, S), float32."""
    x = torch.from_numpy(np.ascontiguousarray(pixels_BHWC)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (spec.preprocess.mean, spec.preprocess.std))
    return (x - mean) / std


def dense(tower: Backbone, pixels_BHWC: np.ndarray) -> Tensor:
    """Return the tap ``dense`` (B, T, D), float32, of uint8 pixels (B, S, S, 3)."""
    parts = [
        tower.encode_images(normalised(pixels_BHWC[i : i + _ROWS], tower.spec), [DENSE])[DENSE].float()
        for i in range(0, len(pixels_BHWC), _ROWS)
    ]
    return torch.cat(parts)
