"""Evaluate a fitted state on a test set, which is streamed in slices. Nothing is chosen here.

Legend: B images of a slice, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data.dataset import Dataset
from bench.errors import BenchError
from bench.interface import EVAL, Consts, Features, Method, Params
from bench.plan.cells import Evaluation, Planned
from bench.plan.estimate import row_shape
from bench.records.codec import SCHEMA
from bench.records.types import EvaluationRecord
from bench.run.session import Session
from bench.train import pure, slices, waves

TOP = 5
Evaluated = tuple[EvaluationRecord, dict[str, np.ndarray]]
ROWS: int | None = None  # images of a slice; None: as many as the device scores at once (``slices.most``)


def predict(
    session: Session,
    fit: Planned,
    evaluation: Evaluation,
    params: Params,
    consts: Consts,
    values: Mapping[str, Any],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the top-1 (n,) and top-5 (n, 5) classes of every test image, in list order.

    If the target has only a subset of the classes, only their columns of the logits are ranked (protocol
    1.6).
    """
    return padded(_slices_ranked(session, fit, evaluation, params, consts, values))


def _slices_ranked(
    session: Session,
    fit: Planned,
    evaluation: Evaluation,
    params: Params,
    consts: Consts,
    values: Mapping[str, Any],
) -> list[np.ndarray]:
    """Return the best classes of every slice of the test set, in list order."""
    target, method = evaluation.target, fit.method
    every: list[np.ndarray] = []
    each, device = slices.row_bytes([row_shape(fit.backbone, t) for t in method.taps]), session.device
    most = slices.most(torch.device(device), waves.own_part(torch.device(device), session.sharers))
    rows = ROWS or max(1, most // each)
    limit = slices.Limit(rows * each)
    parts = [session.slices(fit.backbone, target, target.test.paths, EVAL, tap, rows) for tap in method.taps]
    with torch.no_grad():
        for pieces in zip(*parts, strict=True):
            features = {tap: x for tap, (_, x) in zip(method.taps, pieces, strict=True)}

            def of_part(at: slice, features: Features = features) -> np.ndarray:
                part = {tap: x[at] for tap, x in features.items()}
                with session.guard.work(fit, "its evaluation"):
                    return ranked(fit, target, params, consts, part, values)

            every += slices.over(len(next(iter(features.values()))), each, limit, of_part)
    return every


def ranked(
    fit: Planned,
    target: Dataset,
    params: Params,
    consts: Consts,
    features: Features,
    values: Mapping[str, Any],
) -> np.ndarray:
    """Return the best classes of a slice's images, (B, min(TOP, K)), best first.

    Raises BenchError if the method returns no finite logits (B, K), or writes into what it was given.
    """
    method, B = fit.method, len(next(iter(features.values())))
    with pure.call(method, "logits", params=params, constants=consts, features=features):
        logits_BK = method.logits(params, consts, features, deepcopy(dict(values)))
    _require_logits(method, logits_BK, B, len(fit.dataset.classnames))
    if not torch.isfinite(logits_BK).all():
        why = "its training diverged, or a setting is out of range; try smaller ones"
        raise BenchError(f"{fit.cell.method} gives logits that are not finite: {why}")
    if target.classes is not None:
        logits_BK = logits_BK[:, torch.tensor(target.classes, device=logits_BK.device)]
    # argsort is used and not topk, because equal logits must rank alike on every device: lower classes first.
    order_BK = logits_BK.argsort(dim=-1, descending=True, stable=True)
    return order_BK[:, : min(TOP, len(target.classnames))].cpu().numpy()


def _require_logits(method: Method, logits: object, B: int, K: int) -> None:
    """Raise BenchError if ``logits`` is no floating-point tensor (B, K)."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        what = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise BenchError(f"logits of {method.name} gives {what}, not a tensor of floating numbers")
    if tuple(logits.shape) != (B, K):
        raise BenchError(
            f"logits of {method.name} has shape {tuple(logits.shape)} for {B} images and {K} classes, "
            f"not {(B, K)}"
        )


def padded(slices: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return top-1 (n,) and top-5 (n, 5) of all slices. With fewer than five classes the last is repeated."""
    every = np.concatenate(slices)
    return every[:, 0], np.pad(every, ((0, 0), (0, TOP - every.shape[1])), mode="edge")


def evaluate(
    session: Session,
    fit: Planned,
    evaluation: Evaluation,
    params: Params,
    consts: Consts,
    chosen: Mapping[str, Any],
) -> Evaluated:
    """Return the evaluation's record and its predictions by name: ``top1``, ``top5`` and ``labels``."""
    values = values_of(fit, evaluation, chosen)
    began = time.perf_counter()
    slices = _slices_ranked(session, fit, evaluation, params, consts, values)
    return concluded(fit, evaluation, values, slices, time.perf_counter() - began)


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
    slices: Sequence[np.ndarray],
    seconds: float,
) -> Evaluated:
    """Return the record, without provenance and checksums yet, and the predictions, from ranked slices."""
    top1, top5 = padded(slices)
    labels = np.asarray(evaluation.target.test.labels)
    record = EvaluationRecord(
        schema=SCHEMA,
        key=evaluation.key,
        fit=fit.key,
        cell=fit.cell,
        target=evaluation.target.name,
        parts=evaluation.parts,
        values={k: values[k] for k in evaluation.values},
        changed=dict(evaluation.changed),
        n=len(labels),
        top1=float((top1 == labels).mean()),
        top5=float((top5 == labels[:, None]).any(1).mean()),
        seconds=seconds,
        target_identity=evaluation.target.spec.identity,
        target_covers=evaluation.target.covers,
    )
    return record, {"top1": top1, "top5": top5, "labels": labels}
