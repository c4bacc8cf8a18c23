"""Join what the fits of all folds said of their test images into one prediction for every image.

Legend: n tested images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data import folds
from bench.data.dataset import Dataset
from bench.errors import BenchError
from bench.plan.cells import Plan, Planned, kind, label
from bench.records import places, store
from bench.records.keys import ALL
from bench.records.outcomes import LOGITS
from bench.records.types import Cell, EvaluationRecord, Failure


@dataclass(frozen=True)
class Predictions:
    """One prediction for every image that a fold tests, in the order of ``folds.everything``.

    ``paths``, ``labels`` (n,) and ``fold`` (n,): the images, their classes, and the folds that tested them,
    from 1 on. ``top1`` (n,): the class that each image's fold predicts. ``confidence`` (n,): its probability,
    at the temperature of the fold's fit if it has one; None in records that kept no probabilities.
    ``probabilities`` (n, K): those of all classes, at that temperature, where the logits of all folds were
    kept (``--keep-logits``); otherwise None. The images that no fold tests (``folds.fold``) are missing.
    """

    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    fold: NDArray[np.int64]
    top1: NDArray[np.int64]
    confidence: NDArray[np.float64] | None
    probabilities: NDArray[np.float64] | None

    @property
    def right(self) -> NDArray[np.bool_]:
        """Return which images are right (n,)."""
        return np.asarray(self.top1 == self.labels)


def grouped(plan: Plan) -> dict[Cell, list[Planned]]:
    """Return the asked-for fits of a plan of folds, by their cell without the fold: one group per method.

    Raises BenchError if a method has several variants, which a plan with a sweep has.
    """
    groups: dict[Cell, list[Planned]] = {}
    for fit in plan.fits:
        if fit.asked and fit.cell.shots == ALL:
            groups.setdefault(kind(fit), []).append(fit)
    for fits in groups.values():
        numbers = [fit.cell.seed for fit in fits]
        if len(set(numbers)) < len(numbers):
            raise BenchError(
                f"{fits[0].cell.method} has several cells on one fold: "
                "plan one value of each setting, no sweep"
            )
    return groups


def predictions(fits: Sequence[Planned]) -> Predictions:
    """Return the predictions of the recorded fits of one method on all folds of one dataset.

    Raises BenchError if the fits are not those of all folds of one dataset, each once, and if an evaluation
    failed, has no record, or lost its arrays.
    """
    whole = _whole(fits)
    items = folds.everything(whole)
    position = {path: i for i, path in enumerate(items.paths)}
    each = [_arrays(fit) for fit in fits]
    at = np.concatenate(
        [np.array([position[p] for p in fit.dataset.test.paths], dtype=np.int64) for fit in fits]
    )
    order = np.argsort(at, kind="stable")

    def joined(name: str) -> NDArray[Any] | None:
        parts = [arrays[name] for arrays in each if name in arrays]
        return np.concatenate(parts)[order] if len(parts) == len(each) else None

    labels, top1 = joined("labels"), joined("top1")
    assert labels is not None and top1 is not None, "every evaluation has them"
    numbers = [np.full(len(fit.dataset.test), fit.cell.seed, dtype=np.int64) for fit in fits]
    return Predictions(
        tuple(items.paths[i] for i in at[order]),
        labels.astype(np.int64),
        np.concatenate(numbers)[order],
        top1.astype(np.int64),
        joined("confidence"),
        joined("probabilities"),
    )


def _whole(fits: Sequence[Planned]) -> Dataset:
    """Return the dataset whose folds these are. Raises BenchError unless they are all of them, each once."""
    whole = fits[0].dataset.whole if fits else None
    if whole is None:
        raise BenchError("there is no fit of a fold: plan with folds, as `bench run --folds 5` does")
    places_ = np.array(folds.assigned(whole, len(fits)))
    paths = folds.everything(whole).paths
    for fit in fits:
        tested = tuple(paths[i] for i in np.flatnonzero(places_ == fit.cell.seed))
        if fit.dataset.whole is None or fit.dataset.whole.digest != whole.digest:
            raise BenchError(
                f"{label(fit)}: of another dataset than {label(fits[0])}: join one dataset's folds"
            )
        if fit.dataset.test.paths != tested:
            raise BenchError(
                f"{label(fit)}: is not one of {len(fits)} folds: give the fits of all folds of one plan"
            )
    if len({fit.cell.seed for fit in fits}) < len(fits):
        raise BenchError(f"{label(fits[0])}: a fold is there twice: give each fold once")
    return whole


def _arrays(fit: Planned) -> dict[str, NDArray[Any]]:
    """Return the arrays of a fit's evaluation on its own fold, with ``confidence`` and ``probabilities``."""
    own = next((e for e in fit.evaluations if e.target.digest == fit.dataset.digest), None)
    if own is None:
        raise BenchError(f"{label(fit)}: its own fold was not evaluated: plan its evaluation too")
    path = places.evaluation_path(fit.where, fit.key, own.key)
    record = store.read(path)
    if not isinstance(record, EvaluationRecord):
        failed = record if isinstance(record, Failure) else store.failure(places.fit_path(fit.where, fit.key))
        why = f"failed: {failed.error}" if failed else "has no record"
        raise BenchError(f"{label(fit)} {why}: the same `bench run` does it again")
    arrays = store.arrays(path, record)
    if "logp" in arrays:
        logp = arrays["logp"][:, 0].astype(np.float64)
        T = record.temperature
        arrays["confidence"] = np.exp(logp / T - arrays["lse_t"] if T and "lse_t" in arrays else logp)
    if LOGITS in arrays:
        z = arrays[LOGITS].astype(np.float64) / (record.temperature or 1.0)
        p = np.exp(z - z.max(1, keepdims=True))
        arrays["probabilities"] = p / p.sum(1, keepdims=True)
    return arrays
