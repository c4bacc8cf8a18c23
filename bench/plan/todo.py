"""Find what is left to do of a plan: the fits and evaluations that have no record yet.

This module imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bench.plan.cells import Evaluation, Plan, Planned, chain
from bench.records import places, states, store
from bench.records.codec import checksum_of
from bench.records.types import EvaluationRecord, FitRecord, Record
from bench.records.whole import Bad

# Which records do not count, so that their cells are done again. False: all records count. True: none counts.
# A kind of device ("cpu", "cuda"): records of the other kind do not count, nor do records that build on them.
Fresh = bool | str


@dataclass(frozen=True)
class Todo:
    """A fit with work left: the evaluations that lack a record, and the fit's own record if it has one.

    ``late``: whether it failed or was stopped when it was last tried; such cells are done after all others.
    """

    fit: Planned
    evaluations: tuple[Evaluation, ...]
    stored: FitRecord | None
    late: bool = False

    @property
    def done(self) -> bool:
        """Return whether nothing is left."""
        return self.stored is not None and not self.evaluations


def remaining(plan: Plan, fresh: Fresh = False, bad: list[Bad] | None = None) -> tuple[list[Todo], int]:
    """Return what is left to do, in plan order, and the number of asked-for cells that are complete.

    A cell is left to do if its record is damaged or lies in the place of another record, or if its
    predictions are gone or do not give its numbers. Such records are added to ``bad``. A fit that a complete
    cell builds on is left to do if its record is gone, because this record says what the cell was made with.
    ``fresh``: which records do not count.
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


def left(fit: Planned, fresh: Fresh = False, bad: list[Bad] | None = None) -> Todo:
    """Return what is left to do of one fit; ``fresh`` and ``bad`` as in ``remaining``."""
    stored = recorded(fit, bad, fresh)
    lacking = tuple(e for e in fit.evaluations if not evaluated(fit, e, bad, fresh))
    return Todo(fit, lacking, stored, not (stored and not lacking) and _tried_before(fit, lacking))


def _tried_before(fit: Planned, lacking: tuple[Evaluation, ...]) -> bool:
    tried = [places.fit_path(fit.where, fit.key)]
    tried += [places.evaluation_path(fit.where, fit.key, e.key) for e in lacking]
    return places.stopped_path(fit.where, fit.key).exists() or any(map(store.failed, tried))


def recorded(fit: Planned, bad: list[Bad] | None = None, fresh: Fresh = False) -> FitRecord | None:
    """Return the record of a planned fit, or None if there is none that counts.

    A record that is damaged or out of place is added to ``bad``. ``fresh``: which records do not count.
    """
    if fresh is True:
        return None
    record = store.fit(places.fit_path(fit.where, fit.key), fit.key, bad)
    if record is None or not fresh:
        return record
    below = (recorded(other, fresh=fresh) for other in fit.after.values())
    return record if kind(record) == fresh and all(below) else None


def kind(record: Record) -> str:
    """Return the kind of device that a record was made on: ``cpu`` or ``cuda``."""
    return record.provenance.device.partition(":")[0]


def has_state(fit: Planned, fresh: Fresh = False) -> bool:
    """Return whether a planned fit was made and its state, if it has one, can be read; ``fresh`` as above."""
    record = recorded(fit, fresh=fresh)
    return record is not None and states.there(fit.where.parents[3], record)


def evaluated(
    fit: Planned, evaluation: Evaluation, bad: list[Bad] | None = None, fresh: Fresh = False
) -> bool:
    """Return whether an evaluation has a record, with predictions on the labels of its test set.

    Tables ask the same (bench.report.believed), so that whatever they leave out is made again. ``fresh``:
    which records do not count. If a fit is made again for its kind of device, so are its evaluations.
    """
    if fresh is True:
        return False
    path = places.evaluation_path(fit.where, fit.key, evaluation.key)
    labels = _checksum(evaluation.target.test.labels)
    record = store.evaluation(path, evaluation.key, bad, labels, fit.parts)
    if record is None or not fresh:
        return record is not None
    own = recorded(fit, fresh=fresh)
    return own is not None and kind(record) == fresh and own.provenance.order <= record.provenance.order


def without(plan: Plan, todo: list[Todo], array: str) -> int:
    """Return how many recorded evaluations of a plan, which are not done again, did not keep an array."""
    left_over = {e.key for t in todo for e in t.evaluations}
    paths = [
        places.evaluation_path(fit.where, fit.key, e.key)
        for fit in plan.fits
        for e in fit.evaluations
        if fit.asked and e.key not in left_over
    ]
    records = map(store.read, paths)
    return sum(isinstance(r, EvaluationRecord) and array not in r.outputs for r in records)


@lru_cache(maxsize=64)
def _checksum(labels: tuple[int, ...]) -> str:
    return checksum_of(np.asarray(labels))
