"""Describe a method's recipe on one task in words: what is trained, how, how long, and what chooses."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from bench.interface import FitValues, Method, Params, Recipe, State, Stream, Task, fit_values, points
from bench.lazy import torch
from bench.names import few
from bench.plan.cells import Planned
from bench.plan.estimate import row_shape
from bench.plan.settings import resolve
from bench.run import task as tasks
from bench.run.session import Session
from bench.train import rng


def lines(fit: Planned, session: Session) -> Iterator[str]:
    """Yield the lines that describe a planned fit's method, with the sizes of that fit's task."""
    method, recipe, facts = fit.method, fit.recipe, fit.facts
    yield f"{method.name}: {method.title}" + (f" ({method.cite})" if method.cite else "")
    yield f"  what        {_first_paragraph(method.__doc__)}"
    yield f"  source      {_first_paragraph(sys.modules[type(method).__module__].__doc__)}"
    if method.note:
        yield f"  note        {method.note}"
    if method.after:
        yield f"  reads       the fitted state of {', '.join(method.after)}"
    yield (
        f"  towers      {', '.join(method.towers)}; test features {', '.join(method.taps)}; "
        f"prompts {', '.join(method.prompts)}"
    )
    if recipe.optim is None:
        solved = type(method).solve is not Method.solve
        yield "  training    none by gradient" + ("; solved once per grid point" if solved else "")
    else:
        shapes = trained(fit, session)
        total = sum(map(math.prod, shapes.values()))
        names = few((f"{n} {'x'.join(map(str, s))}" for n, s in shapes.items()), 6)
        yield f"  trains      {total:,} numbers: {names}"
        yield f"  optimiser   {_optimiser(recipe)}"
        length = f"{recipe.steps} steps" if recipe.steps is not None else f"{recipe.epochs} epochs"
        yield f"  length      {length}; schedule {recipe.schedule.name if recipe.schedule else 'none'}"
        for name, stream in recipe.streams.items():
            yield f"  batch       {name}: {_stream(stream)}"
    for what, axes in (("grid", {**recipe.grid, **recipe.static}), ("search", recipe.search)):
        if axes:
            named = "; ".join(f"{a} {_axis(v)}" for a, v in axes.items())
            yield f"  {what:<11} {len(points(axes))} points: {named}"
    yield f"  selection   {_selection(recipe)}"
    changed = _changes(fit)
    yield f"  preset      '{facts.preset}'" + (": " + ", ".join(changed) if changed else " changes nothing")


def trained(fit: Planned, session: Session) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of one replica's trainable tensors.

    They are initialised on features of ones, so no image is read.
    """
    task = _blank(fit, session)
    with session.guard.work(fit, "prepare or init"):
        consts = fit.method.prepare(task)
        params = fit.method.init(task, consts, _values(fit, task), rng.generator(0, "describe"))
    return {name: tuple(p.shape) for name, p in params.items()}


def _values(fit: Planned, task: Task) -> FitValues:
    """Return the values at the first point of the grid."""
    return fit_values(fit.method, task.settings).with_(points({**fit.recipe.grid, **fit.recipe.static})[0])


def _blank(fit: Planned, session: Session) -> Task:
    """Return the fit's task with features of ones in place of images."""
    task = tasks.make(session, fit, {name: _state(other, session) for name, other in fit.after.items()})
    n = len(task.labels_N)

    def features(tap: str, view: str) -> torch.Tensor:
        return torch.ones(n, *row_shape(fit.backbone, tap), device=task.device)

    return replace(task, features=features, slices=lambda tap, view: iter([(0, features(tap, view))]))


def _state(fit: Planned, session: Session) -> State:
    """Return the state of a fit on features of ones, before any training."""
    task = _blank(fit, session)
    params: Params = {}
    with session.guard.work(fit, "prepare or init"):
        consts, values = fit.method.prepare(task), _values(fit, task)
        if fit.recipe.optim is not None:
            params = fit.method.init(task, consts, values, rng.generator(0, "describe"))
    return State(params, values)


def _first_paragraph(text: str | None) -> str:
    """Return the first paragraph of a docstring, in one line."""
    return " ".join((text or "").split("\n\n")[0].split())


def _optimiser(recipe: Recipe) -> str:
    """Return the optimiser of a recipe in words."""
    spec = recipe.optim
    assert spec is not None
    details = f"momentum {spec.momentum:g}" if spec.name == "sgd" else f"betas {spec.betas}, eps {spec.eps:g}"
    clip = f", gradients clipped at {spec.clip_norm:g}" if spec.clip_norm else ""
    return f"{spec.name}, {details}{clip}"


def _stream(stream: Stream) -> str:
    """Return a stream's batches in words."""
    batch = "as many rows as can be drawn" if stream.batch is None else f"{stream.batch} rows"
    bank = ", ".join(stream.views)
    if len(stream.views) > 3:
        bank = f"{stream.views[0]} ... ({len(stream.views)} views)"
    views = f" of {bank}" if stream.source == "support" else ""
    return f"{batch} of {stream.source} '{stream.tap}'{views}; {stream.rows}, {stream.order}"


def _axis(values: tuple[Any, ...]) -> str:
    """Return the values of an axis in words. If there are more than six, only the first and the last."""
    shown = [f"{v:g}" if isinstance(v, int | float) else str(v) for v in values]
    if len(shown) <= 6:
        return "{" + ", ".join(shown) + "}"
    return f"{shown[0]} ... {shown[-1]} ({len(shown)} values)"


def _selection(recipe: Recipe) -> str:
    """Return in words what selects the checkpoint, the grid point and the searched values."""
    several = any(len(v) > 1 for axes in (recipe.grid, recipe.static, recipe.search) for v in axes.values())
    if recipe.optim is not None and recipe.select == "best":
        when = f"every {recipe.check_every} steps" if recipe.check_every else "after every epoch"
        return f"best checkpoint by few-shot validation {recipe.criterion}, {when}; earliest of equals"
    last = "last step" if recipe.optim is not None else "nothing trained"
    if not several:
        return f"{last}; nothing to choose"
    return f"{last}; the rest by few-shot validation accuracy, first of equals"


def _changes(fit: Planned) -> list[str]:
    """Return the settings that the preset changes from the published recipe, as "name old -> new"."""
    published: Mapping[str, Any] = resolve(fit.method, "paper", fit.facts.recipe_as, {})
    return [
        f"{k} {_value(v)} -> {_value(fit.settings[k])}" for k, v in published.items() if fit.settings[k] != v
    ]


def _value(value: Any) -> str:
    return (
        _axis(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
    )
