"""Evaluate a fitted state on a test set, which is streamed in slices. Nothing is chosen here.

Legend: B images of a slice, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from bench import metrics
from bench.data.dataset import Dataset
from bench.errors import BenchError
from bench.interface import EVAL, Consts, Features, Params
from bench.plan.cells import Evaluation, Planned
from bench.plan.estimate import row_shape
from bench.records import outcomes
from bench.records.codec import SCHEMA
from bench.records.types import EvaluationRecord, PerClass
from bench.run import logits, outputs
from bench.run.outputs import Arrays
from bench.run.session import Session
from bench.train import slices, waves

Evaluated = tuple[EvaluationRecord, Arrays]
ROWS: int | None = None  # images of a slice; None: as many as the device scores at once (``slices.most``)


def evaluate(
    session: Session,
    fit: Planned,
    evaluation: Evaluation,
    params: Params,
    consts: Consts,
    chosen: Mapping[str, Any],
    temperature: float | None,
) -> Evaluated:
    """Return the evaluation's record, and the arrays of all test images by name, in list order.

    ``chosen``: the values that validation chose. ``temperature``: that of the fit; None if it has none.
    """
    values = values_of(fit, evaluation, chosen)
    began = time.perf_counter()
    arrays = empty(session, evaluation, temperature)
    _fill(session, fit, evaluation, params, consts, values, arrays, temperature)
    return concluded(fit, evaluation, values, arrays, temperature, time.perf_counter() - began)


def empty(session: Session, evaluation: Evaluation, temperature: float | None) -> Arrays:
    """Return the arrays of an evaluation, to be filled."""
    target = evaluation.target
    n, K = len(target.test.paths), len(target.classnames)
    return outputs.empty(n, K, temperature is not None, session.keep_logits)


def size(session: Session, evaluation: Evaluation) -> int:
    """Return about how many bytes the arrays of an evaluation take."""
    target = evaluation.target
    logits_too = 2 * len(target.classnames) if session.keep_logits else 0
    return len(target.test.paths) * (outputs.BYTES + logits_too)


def _fill(
    session: Session,
    fit: Planned,
    evaluation: Evaluation,
    params: Params,
    consts: Consts,
    values: Mapping[str, Any],
    arrays: Arrays,
    temperature: float | None,
) -> None:
    """Fill the arrays of the test set slice by slice."""
    target, method, start = evaluation.target, fit.method, 0
    each, device = slices.row_bytes([row_shape(fit.backbone, t) for t in method.taps]), session.device
    most = slices.most(torch.device(device), waves.own_part(torch.device(device), session.sharers))
    rows = ROWS or max(1, most // each)
    limit = slices.Limit(rows * each)
    parts = [session.slices(fit.backbone, target, target.test.paths, EVAL, tap, rows) for tap in method.taps]
    with torch.no_grad():
        for pieces in zip(*parts, strict=True):
            features = {tap: x for tap, (_, x) in zip(method.taps, pieces, strict=True)}

            def of_part(at: slice, features: Features = features, start: int = start) -> None:
                part = {tap: x[at] for tap, x in features.items()}
                with session.guard.work(fit, "its evaluation"):
                    tell(fit, target, params, consts, part, values, arrays, start + at.start, temperature)

            n = len(next(iter(features.values())))
            for _ in slices.over(n, each, limit, of_part):
                pass
            start += n


def tell(
    fit: Planned,
    target: Dataset,
    params: Params,
    consts: Consts,
    features: Features,
    values: Mapping[str, Any],
    arrays: Arrays,
    start: int,
    temperature: float | None,
) -> None:
    """Fill the rows of a slice's images, which are those from ``start`` on in the test list.

    If the target has only a subset of the classes, only their columns of the logits count: for the ranks and
    for the probabilities (protocol 1.6). Raises BenchError as ``logits.of`` and ``outputs.fill`` do.
    """
    logits_BK = logits.of(fit, params, consts, features, values)
    if target.classes is not None:
        logits_BK = logits_BK[:, torch.tensor(target.classes, device=logits_BK.device)]
    labels = target.test.labels[start : start + len(logits_BK)]
    try:
        outputs.fill(arrays, start, logits_BK, labels, temperature)
    except BenchError as error:
        raise BenchError(f"{fit.cell.method}: {error}") from error


def values_of(fit: Planned, evaluation: Evaluation, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values for ``logits``: settings, values that validation chose, and the evaluation's own.

    An inference-time value that neither validation nor the evaluation sets is None.
    """
    late = evaluation.values
    early = {k: v for k, v in fit.settings.items() if k not in late}
    return {**early, **dict.fromkeys(late), **chosen, **{k: v for k, v in late.items() if v is not None}}


def concluded(
    fit: Planned,
    evaluation: Evaluation,
    values: Mapping[str, Any],
    arrays: Arrays,
    temperature: float | None,
    seconds: float,
) -> Evaluated:
    """Return the record, without provenance and checksums yet, and the arrays with the labels."""
    target = evaluation.target
    labels, K = np.asarray(target.test.labels), len(target.classnames)
    counts = metrics.per_class(arrays["top1"], labels, K)
    further = {name: x for name, x in arrays.items() if name != "top1"}
    told = metrics.values(outcomes.outputs({**arrays, "labels": labels}, K, temperature))
    record = EvaluationRecord(
        schema=SCHEMA,
        key=evaluation.key,
        fit=fit.key,
        cell=fit.cell,
        target=target.name,
        parts=evaluation.parts,
        values={k: values[k] for k in evaluation.values},
        changed=dict(evaluation.changed),
        n=len(labels),
        top1=float((arrays["top1"] == labels).mean()),
        top5=float((arrays["classes"] == labels[:, None]).any(1).mean()),
        seconds=seconds,
        metrics=told,
        per_class=PerClass(
            images=counts.images.tolist(), right=counts.right.tolist(), predicted=counts.predicted.tolist()
        ),
        outputs=list(further),
        temperature=temperature,
        target_identity=target.spec.identity,
        target_covers=target.covers,
    )
    return record, {"top1": arrays["top1"], "labels": labels, **further}
