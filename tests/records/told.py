"""Give a written evaluation what is kept of every image, as the program would, from drawn logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from msgspec.structs import replace

from bench import metrics
from bench.records import outcomes, places, store
from bench.records.types import EvaluationRecord, FitRecord, PerClass
from bench.run import outputs


def tell(path: Path, K: int, temperature: float | None = 1.5, keep_logits: bool = False) -> EvaluationRecord:
    """Write an evaluation and its fit again, with arrays, metrics, counts by class and a temperature.

    The logits of K classes are drawn for the record's own predictions. Returns the evaluation's new record.
    """
    record = store.read(path)
    assert isinstance(record, EvaluationRecord)
    kept = store.predictions(path)
    top1, labels = kept["top1"].astype(int), kept["labels"].astype(int)
    draw = np.random.default_rng([*record.key[:20].encode()])
    logits = draw.normal(0, 2, (len(top1), K))
    logits[np.arange(len(top1)), top1] = logits.max(1) + draw.exponential(1, len(top1))
    arrays = outputs.empty(len(top1), K, temperature is not None, keep_logits)
    outputs.fill(arrays, 0, torch.tensor(logits), labels.tolist(), temperature)
    np.testing.assert_array_equal(arrays["top1"], top1)
    further = {name: x for name, x in arrays.items() if name != "top1"}
    checksums = store.write_predictions(path, {"top1": top1, "labels": labels, **further})
    counts = metrics.per_class(top1, labels, K)
    record = replace(
        record,
        top5=float((arrays["classes"] == labels[:, None]).any(1).mean()),
        predictions=checksums,
        metrics=metrics.values(outcomes.outputs({**arrays, "labels": labels}, K, temperature)),
        per_class=PerClass(**{name: x.tolist() for name, x in counts._asdict().items()}),
        outputs=list(further),
        temperature=temperature,
    )
    store.put(path, record)
    fit_path = places.fit_path(path.parent, record.fit)
    fit = store.read(fit_path)
    assert isinstance(fit, FitRecord)
    store.put(fit_path, replace(fit, temperature=temperature))
    return record
