"""Evaluation: a fitted state on a test set, streamed in slices; nothing is chosen here.

Legend: B images of a slice, K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from bench.errors import BenchError
from bench.interface import EVAL, Consts, Params
from bench.run.estimate import row_shape
from bench.run.plan import Evaluation, Planned
from bench.run.session import Session

TOP = 5
SLICE_BYTES = 64 << 20
ROWS: int | None = None  # images of a slice; None: as many as SLICE_BYTES hold


def predict(
    session: Session, fit: Planned, evaluation: Evaluation, params: Params, consts: Consts, values: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Top-1 (n,) and top-5 (n, 5) classes of every test image, in list order.

    A target with a class subset is scored on its rows of the classifier only, before the arg-max (protocol 1.6).
    """
    target, method = evaluation.target, fit.method
    columns = None if target.classes is None else torch.tensor(target.classes, device=session.device)
    K = len(target.classnames)
    found = []
    rows = ROWS or max(1, SLICE_BYTES // sum(4 * math.prod(row_shape(fit.backbone, tap)) for tap in method.taps))
    parts = [session.slices(fit.backbone, target, target.test.paths, EVAL, tap, rows) for tap in method.taps]
    with torch.no_grad():
        for pieces in zip(*parts, strict=True):
            features = {tap: x for tap, (_, x) in zip(method.taps, pieces, strict=True)}
            logits_BK = method.logits(params, consts, features, values)
            if not torch.isfinite(logits_BK).all():
                raise BenchError(f"{fit.cell.method} gives logits that are not finite: its training diverged; try smaller rates")
            if columns is not None:
                logits_BK = logits_BK[:, columns]
            # argsort and not topk: equal logits must rank the same way on every device, the lower class first.
            found.append(logits_BK.argsort(dim=-1, descending=True, stable=True)[:, : min(TOP, K)].cpu().numpy())
    ranked = np.concatenate(found)
    return ranked[:, 0], np.pad(ranked, ((0, 0), (0, TOP - ranked.shape[1])), mode="edge")


def evaluate(
    session: Session, fit: Planned, evaluation: Evaluation, params: Params, consts: Consts, chosen: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The evaluation's record (without provenance) and its predictions: top-1, top-5, labels."""
    given = {k: v for k, v in evaluation.values.items() if v is not None}
    values = {**fit.settings, **chosen, **given}
    began = time.perf_counter()
    top1, top5 = predict(session, fit, evaluation, params, consts, values)
    labels = np.asarray(evaluation.target.test.labels)
    record = {
        "target": evaluation.target.name,
        "target_digest": evaluation.target.digest,
        "values": {k: values[k] for k in evaluation.values},
        "changed": dict(evaluation.changed),
        "n": len(labels),
        "top1": float((top1 == labels).mean()),
        "top5": float((top5 == labels[:, None]).any(1).mean()),
        "seconds": time.perf_counter() - began,
    }
    return record, (top1, top5, labels)
