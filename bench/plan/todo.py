"""What of a plan is left to do: the fits and evaluations that have no record yet. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from bench.plan.cells import Evaluation, Plan, Planned
from bench.records import places, store
from bench.records.types import FitRecord


@dataclass(frozen=True)
class Todo:
    """A fit with work left: the evaluations that lack a record, and the fit's own record where it has one."""

    fit: Planned
    evaluations: tuple[Evaluation, ...]
    stored: FitRecord | None


def remaining(plan: Plan, fresh: bool = False) -> tuple[list[Todo], int]:
    """What is left to do, in plan order, and how many asked-for cells are complete.

    ``fresh``: as if nothing were recorded.
    """
    todo, complete = [], 0
    for fit in plan.fits:
        stored = None if fresh else recorded(fit)
        lacking = tuple(e for e in fit.evaluations if fresh or not evaluated(fit, e))
        if fit.asked and stored and not lacking:
            complete += 1
        elif fit.asked:
            todo.append(Todo(fit, lacking, stored))
    return todo, complete


def recorded(fit: Planned) -> FitRecord | None:
    """The record of a planned fit, if it was made."""
    return store.fit(places.fit_path(fit.where, fit.key), fit.key)


def evaluated(fit: Planned, evaluation: Evaluation) -> bool:
    """Whether an evaluation of a planned fit has a record."""
    path = places.evaluation_path(fit.where, fit.key, evaluation.key)
    return store.evaluation(path, evaluation.key) is not None
