"""What of a plan is left to do: the fits and evaluations that have no record yet. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bench.plan.cells import Evaluation, Plan, Planned, chain
from bench.records import places, states, store
from bench.records.codec import checksum_of
from bench.records.types import FitRecord
from bench.records.whole import Bad


@dataclass(frozen=True)
class Todo:
    """A fit with work left: the evaluations that lack a record, and the fit's own record where it has one.

    ``late``: it failed or was stopped when it was last tried, so that others are done before it.
    """

    fit: Planned
    evaluations: tuple[Evaluation, ...]
    stored: FitRecord | None
    late: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return self.stored is not None and not self.evaluations


def remaining(plan: Plan, fresh: bool = False, bad: list[Bad] | None = None) -> tuple[list[Todo], int]:
    """What is left to do, in plan order, and how many asked-for cells are complete.

    Records that are damaged or lie in another's place, and evaluations whose predictions are gone or do not
    give their numbers, are left to do, and are added to ``bad``. So are fits that a complete cell builds on,
    where their records have gone: these say what it was made with. ``fresh``: as if nothing were recorded.
    """
    each = {fit.key: left(fit, fresh, bad) for fit in plan.fits}
    complete = {key for key, t in each.items() if t.fit.asked and t.done}
    read = {other.key for key in complete for other in chain(each[key].fit)}
    todo = [
        t
        for key, t in each.items()
        if key not in complete and (t.fit.asked or (key in read and not t.stored))
    ]
    return todo, len(complete)


def left(fit: Planned, fresh: bool = False, bad: list[Bad] | None = None) -> Todo:
    """What is left to do of one fit; ``fresh`` and ``bad`` as in ``remaining``."""
    stored = None if fresh else recorded(fit, bad)
    lacking = tuple(e for e in fit.evaluations if fresh or not evaluated(fit, e, bad))
    return Todo(fit, lacking, stored, not (stored and not lacking) and _late(fit, lacking))


def _late(fit: Planned, lacking: tuple[Evaluation, ...]) -> bool:
    tried = [places.fit_path(fit.where, fit.key)]
    tried += [places.evaluation_path(fit.where, fit.key, e.key) for e in lacking]
    return places.stopped_path(fit.where, fit.key).exists() or any(map(store.failed, tried))


def recorded(fit: Planned, bad: list[Bad] | None = None) -> FitRecord | None:
    """The record of a planned fit, if it was made; one that is not believed is added to ``bad``."""
    return store.fit(places.fit_path(fit.where, fit.key), fit.key, bad)


def has_state(fit: Planned) -> bool:
    """Whether a planned fit was made and its state, where it has one, can be read."""
    record = recorded(fit)
    return record is not None and states.there(fit.where.parents[3], record)


def evaluated(fit: Planned, evaluation: Evaluation, bad: list[Bad] | None = None) -> bool:
    """Whether an evaluation of a planned fit has a record, and predictions on the labels of its test set.

    It asks what tables ask (bench.report.believed), so that what they leave out is made again.
    """
    path = places.evaluation_path(fit.where, fit.key, evaluation.key)
    labels = _checksum(evaluation.target.test.labels)
    return store.evaluation(path, evaluation.key, bad, labels, fit.parts) is not None


@lru_cache(maxsize=64)
def _checksum(labels: tuple[int, ...]) -> str:
    return checksum_of(np.asarray(labels))
