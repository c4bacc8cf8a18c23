"""What of a plan is left to do: the fits and evaluations that have no record yet. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bench.plan.cells import Evaluation, Plan, Planned, chain
from bench.records import places, states, store
from bench.records.codec import checksum_of
from bench.records.types import FitRecord, Record
from bench.records.whole import Bad

# Which records do not count: with True all of them, with the name of a kind of device ("cpu", "cuda") those
# that were made on another kind, and what builds on them.
Fresh = bool | str


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


def remaining(plan: Plan, fresh: Fresh = False, bad: list[Bad] | None = None) -> tuple[list[Todo], int]:
    """What is left to do, in plan order, and how many asked-for cells are complete.

    Records that are damaged or lie in another's place, and evaluations whose predictions are gone or do not
    give their numbers, are left to do, and are added to ``bad``. So are fits that a complete cell builds on,
    where their records have gone: these say what it was made with. ``fresh``: which records do not count.
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
    """What is left to do of one fit; ``fresh`` and ``bad`` as in ``remaining``."""
    stored = recorded(fit, bad, fresh)
    lacking = tuple(e for e in fit.evaluations if not evaluated(fit, e, bad, fresh))
    return Todo(fit, lacking, stored, not (stored and not lacking) and _late(fit, lacking))


def _late(fit: Planned, lacking: tuple[Evaluation, ...]) -> bool:
    tried = [places.fit_path(fit.where, fit.key)]
    tried += [places.evaluation_path(fit.where, fit.key, e.key) for e in lacking]
    return places.stopped_path(fit.where, fit.key).exists() or any(map(store.failed, tried))


def recorded(fit: Planned, bad: list[Bad] | None = None, fresh: Fresh = False) -> FitRecord | None:
    """The record of a planned fit, if it was made and counts; one that is not believed is added to ``bad``.

    ``fresh``: which records do not count.
    """
    if fresh is True:
        return None
    record = store.fit(places.fit_path(fit.where, fit.key), fit.key, bad)
    if record is None or not fresh:
        return record
    below = (recorded(other, fresh=fresh) for other in fit.after.values())
    return record if kind(record) == fresh and all(below) else None


def kind(record: Record) -> str:
    """The kind of device that a record was made on: ``cpu`` or ``cuda``."""
    return record.provenance.device.partition(":")[0]


def has_state(fit: Planned, fresh: Fresh = False) -> bool:
    """Whether a planned fit was made and its state, where it has one, can be read; ``fresh`` as above."""
    record = recorded(fit, fresh=fresh)
    return record is not None and states.there(fit.where.parents[3], record)


def evaluated(
    fit: Planned, evaluation: Evaluation, bad: list[Bad] | None = None, fresh: Fresh = False
) -> bool:
    """Whether an evaluation of a planned fit has a record, and predictions on the labels of its test set.

    It asks what tables ask (bench.report.believed), so that what they leave out is made again. ``fresh``:
    which records do not count; where fits are made anew for their device, their evaluations are too.
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


@lru_cache(maxsize=64)
def _checksum(labels: tuple[int, ...]) -> str:
    return checksum_of(np.asarray(labels))
