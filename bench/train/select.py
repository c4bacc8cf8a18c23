"""Fit one task: train or solve every grid point, keep the best on validation, and search inference values.

Only the engine sees validation images. A method never does. Ties keep the first: the earliest check, the
first grid point in sweep order, the first search point (protocol 6.2, 12.3, 15.2).

Legend: R replicas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from bench.errors import BenchError
from bench.interface import (
    Consts,
    FitValues,
    Method,
    Params,
    Task,
    Values,
    fit_values,
    scored_values,
)
from bench.recipe import Recipe, points
from bench.train import loop, pure, rng, slices, span, waves
from bench.train.keep import Labelled
from bench.train.loop import Pool
from bench.train.score import scorer, search


@dataclass
class Fitted:
    """A fitted task.

    ``values``: the chosen grid point and searched values. ``curve``: every grid point with (step, accuracy)
    of all its checks. ``budget``: the numbers of configurations, checks and search points on validation, of
    optimiser steps and of validation images. If memory split the grid, it also has ``waves`` and
    ``halvings``. On a GPU it also has ``graphs``, the number of recorded steps, and ``eager``, the reasons
    why others were not recorded. ``temperature``: the number that calibration divides logits by; the caller
    sets it.
    """

    params: Params
    values: dict[str, Any]
    step: int | None = None
    val_accuracy: float | None = None
    curve: list[dict[str, Any]] = field(default_factory=list)
    budget: dict[str, Any] = field(default_factory=dict)
    temperature: float | None = None


@dataclass(frozen=True)
class Case:
    """A task to fit, its constants, a pool for every stream, and the images that selection scores on."""

    task: Task
    consts: Consts
    pools: Mapping[str, Pool]
    val: Labelled | None


def fit(
    method: Method,
    recipe: Recipe,
    task: Task,
    consts: Consts,
    pools: Mapping[str, Pool],
    val: Labelled | None,
    sharers: int = 1,
) -> Fitted:
    """Fit a task under its recipe.

    ``pools`` has one entry per stream. If ``val`` is None, nothing is scored, and the recipe must leave
    nothing to choose. ``sharers``: how many processes use the device. Raises BenchError if a batch is larger
    than its stream allows.
    """
    return fit_joined(method, recipe, [Case(task, consts, pools, val)], sharers)[0]


def fit_joined(method: Method, recipe: Recipe, cases: Sequence[Case], sharers: int = 1) -> list[Fitted]:
    """Fit tasks that share recipe and settings. They train together, and each task chooses on its own.

    Raises ``join.Apart`` if several tasks cannot join, and whatever ``fit`` raises.
    """
    every = points({**recipe.grid, **recipe.static})
    if any(case.val is None for case in cases) and (len(every) > 1 or len(points(recipe.search)) > 1):
        raise AssertionError("without validation a recipe has one grid point and one search point")
    tally, most = waves.Tally(), _slice_bytes(cases, sharers)
    if recipe.optim:
        done = _trained(method, recipe, cases, tally, sharers, most)
    else:
        done = [_solved(method, recipe, case, most) for case in cases]
    return [
        _chosen(method, recipe, case, by_point, tally, most)
        for case, by_point in zip(cases, done, strict=True)
    ]


def _slice_bytes(cases: Sequence[Case], sharers: int) -> int:
    """Return the bytes of features that are scored at once, for the whole fit."""
    devices = [case.val.y.device for case in cases if case.val]
    return slices.most(devices[0], waves.own_part(devices[0], sharers)) if devices else slices.PROCESSOR


def _chosen(
    method: Method, recipe: Recipe, case: Case, done: dict[Any, _Point], tally: waves.Tally, most: int
) -> Fitted:
    """Choose the grid point of one task, refine it by halving, and search the inference-time values."""
    task, consts, val = case.task, case.consts, case.val
    # The points of one static value train together, but ties are decided in sweep order, in which static axes
    # vary fastest.
    ordered = [done[_key(point)] for point in points({**recipe.grid, **recipe.static})]
    best = max(ordered, key=lambda d: d.score)  # max keeps the first of equals
    if recipe.optim and val is not None and best.score == -math.inf:
        raise BenchError(f"{method.name}: training diverged at every point of its grid; try smaller rates")
    if recipe.halving and not recipe.optim and val is not None:
        best, tried = _halved(method, recipe, case, best, most)
        ordered += tried
    values, accuracy = dict(best.point), best.accuracy
    candidates = points(recipe.search)
    if recipe.search and len(candidates) > 1:
        assert val is not None
        held = scored_values(method, fit_values(method, task.settings).with_(values))
        searched, accuracy = search(method, consts, best.params, held, candidates, val, most)
        values.update(searched)
    elif recipe.search:
        values.update(candidates[0])
    scored = val is not None
    return Fitted(
        best.params,
        values,
        best.step,
        accuracy if scored else None,
        [{"point": d.point, "checks": d.curve} for d in ordered] if recipe.optim and scored else [],
        {
            "configurations": len(ordered) if scored and (recipe.optim or len(ordered) > 1) else 0,
            "checks": sum(len(d.curve) for d in ordered) if scored else 0,
            "search_points": len(candidates) if recipe.search and len(candidates) > 1 else 0,
            "steps": sum(d.steps for d in ordered),
            "val_images": len(val.y) if val else 0,
            **_memory_entries(tally, len(points(recipe.static))),
        },
    )


def _memory_entries(tally: waves.Tally, groups: int) -> dict[str, Any]:
    """Return the entries of ``budget`` about waves and recorded steps, if there is something to say."""
    entries: dict[str, Any] = {}
    if tally.waves > groups:
        entries |= {"waves": tally.waves, "halvings": tally.halvings}
    if tally.graphs or tally.eager:
        entries |= {"graphs": tally.graphs, "eager": sorted(tally.eager)}
    return entries


@dataclass
class _Point:
    """The outcome of one grid point."""

    point: dict[str, Any]
    params: Params
    score: float
    accuracy: float
    step: int | None
    curve: list[tuple[int, float]]
    steps: int


def _key(point: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return a grid point as a dictionary key."""
    return tuple(sorted(point.items()))


def _trained(
    method: Method, recipe: Recipe, cases: Sequence[Case], tally: waves.Tally, sharers: int, most: int
) -> list[dict[Any, _Point]]:
    """Return the outcome of every grid point, by case."""
    done: list[dict[Any, _Point]] = [{} for _ in cases]
    for static in points(recipe.static):
        settings = fit_values(method, cases[0].task.settings).with_(static)
        values = [{**point, **static} for point in points(recipe.grid)]
        group = span.with_static(recipe, static)
        entrants = [_entrant(method, group, case, settings) for case in cases]
        watched = [w for case in cases for w in pure.watch(constants=case.consts, rows=case.pools)]
        for wave in waves.train(method, group, entrants, values, settings, tally, sharers, most):
            for mine, out in zip(done, wave.trained, strict=True):
                for r in range(len(out.score)):
                    curve = [(step, accuracy[r]) for step, accuracy in out.curve]
                    accuracy = next((a for step, a in curve if step == out.step[r]), 0.0)
                    params = {k: p.clone() for k, p in loop.replica(out.params, r).items()}
                    point = values[wave.first + r]
                    mine[_key(point)] = _Point(
                        point, params, out.score[r], accuracy, out.step[r], curve, out.steps
                    )
                # Parameters that can no longer win are freed before the next wave. Ties are decided later.
                top = max(d.score for d in mine.values())
                for d in mine.values():
                    if d.score < top:
                        d.params = {}
        pure.check(watched, "losses or combine", method)
    return done


def _entrant(method: Method, recipe: Recipe, case: Case, settings: FitValues) -> waves.Entrant:
    """Return the task of a case in the form that ``waves.train`` takes."""

    def start(v: Values) -> Params:
        with pure.call(method, "init", task=case.task, constants=case.consts):
            made = method.init(
                case.task, case.consts, settings.with_(v), rng.generator(case.task.seed, "init")
            )
        return _tensors(made, "init", method)

    return waves.Entrant(case.consts, start, case.pools, case.task.seed, case.val)


def _tensors(made: object, function: str, method: Method) -> Params:
    """Return the result of a method's function. Raises BenchError if it is not tensors by name."""
    if not isinstance(made, dict):
        raise BenchError(f"{function} of {method.name} gives {type(made).__name__}, not tensors by name")
    for name, p in made.items():
        if not isinstance(name, str) or not isinstance(p, Tensor):
            raise BenchError(f"{function} of {method.name}: '{name}' is {type(p).__name__}, not a tensor")
    return made


def bytes_per_replica(method: Method, recipe: Recipe, case: Case) -> int:
    """Return the bytes that one replica of the largest group holds while it trains."""
    first = points(recipe.grid)[0]
    groups = [fit_values(method, case.task.settings).with_(static) for static in points(recipe.static)]
    return max(
        waves.bytes_per_replica(_entrant(method, recipe, case, group).start(first), recipe)
        for group in groups
    )


def _solved(method: Method, recipe: Recipe, case: Case, most: int) -> dict[Any, _Point]:
    """Solve every grid point and return the outcomes. If there is only one point, it is not scored."""
    every = points({**recipe.grid, **recipe.static})
    judge = case if len(every) > 1 else replace(case, val=None)
    return {_key(point): _solve(method, recipe, judge, point, most) for point in every}


def _solve(method: Method, recipe: Recipe, case: Case, point: dict[str, Any], most: int) -> _Point:
    """Solve one grid point and score it."""
    settings = fit_values(method, case.task.settings).with_(point)
    with pure.call(method, "solve", task=case.task, constants=case.consts):
        params = _tensors(method.solve(case.task, case.consts, settings), "solve", method)
    accuracy = score = 0.0
    if case.val is not None:
        stacked = {name: p[None] for name, p in params.items()}
        judge = scorer(method, recipe, case.consts, settings, case.val, most)
        accuracy_R, gain_R = judge(stacked, [point])
        accuracy = float(accuracy_R[0])
        score = -math.inf if bool(gain_R.isnan()[0]) else accuracy  # as in Keeper: NaN never wins
    return _Point(point, params, score, accuracy, None, [], 0)


def _halved(
    method: Method, recipe: Recipe, case: Case, best: _Point, most: int
) -> tuple[_Point, list[_Point]]:
    """Refine the best point on each axis of ``recipe.halving``; return the refined point and all tried.

    The interval goes from a tenth to ten times the best value. In each round both ends are solved and scored,
    and the half on the side of the better end is kept. If both are equal, it is the lower half. Midpoints are
    taken between logarithms. The result is the better end of the last round.
    """
    tried: dict[float, _Point] = {}
    for axis, rounds in recipe.halving.items():
        centre = math.log10(best.point[axis])
        low, high = centre - 1.0, centre + 1.0
        for _ in range(rounds):
            for e in (low, high):
                if e not in tried:
                    tried[e] = _solve(method, recipe, case, {**best.point, axis: 10.0**e}, most)
            left = tried[low].score >= tried[high].score
            best, middle = tried[low if left else high], (low + high) / 2.0
            low, high = (low, middle) if left else (middle, high)
    return best, list(tried.values())
