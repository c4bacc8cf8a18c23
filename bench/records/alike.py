"""Tell in which results two records of one key differ.

Predictions and what is counted from them must agree exactly. Temperatures, likelihoods and Brier scores are
equal if they agree to a thousandth, and the probabilities themselves are not compared, because every machine
rounds them in its own way. If one of two records is older and has fewer fields, the fields that it lacks
differ in nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.records.types import EvaluationRecord, Failure, FitRecord, Record

# The results of a fit and of an evaluation. The other fields say what was asked, or how and when it was made.
_FIT = ("values", "step", "val_accuracy", "curve", "has_state")
_EVALUATION = ("n", "top1", "top5", "values")
_CLASSES = ("top1", "labels", "top5", "classes")
_COUNTED = ("top1", "top5", "balanced", "macro-f1")  # metrics that are counted from predictions
# Metrics in which rounding makes a small step. In the others, which put images into bins or in order, it may
# make a large one.
_SMOOTH = ("nll", "nll-after", "brier", "brier-after")
_ROUNDING = 1e-3  # between two temperatures or metrics of probabilities of equal results


def differing(one: Record, other: Record) -> list[str]:
    """Return the names of the results that differ between two records of one key. Failures have none."""
    if isinstance(one, FitRecord) and isinstance(other, FitRecord):
        moved = _apart(one.temperature, other.temperature)
        return _fields(one, other, _FIT) + (["temperature"] if moved else [])
    if isinstance(one, EvaluationRecord) and isinstance(other, EvaluationRecord):
        both = one.predictions.keys() & other.predictions.keys()
        same = all(one.predictions[name] == other.predictions[name] for name in both & set(_CLASSES))
        return _fields(one, other, _EVALUATION) + _metrics(one, other) + ([] if same else ["predictions"])
    return []


def keeps(record: Record) -> set[str]:
    """Return the names of what a record has and an equal one may lack."""
    if isinstance(record, Failure):
        return set()
    kept = {"temperature"} if record.temperature is not None else set()
    if isinstance(record, FitRecord):
        return kept | ({"state"} if record.state else set())
    top5 = {"classes"} if "top5" in record.predictions else set()  # an older record's best classes
    counts = {"per_class"} if record.per_class is not None else set()
    return kept | top5 | counts | {*record.outputs} | {f"metric {name}" for name in record.metrics}


def _metrics(one: EvaluationRecord, other: EvaluationRecord) -> list[str]:
    """Return the names of the metrics and counts that both records have and that differ."""
    differ = [
        name
        for name in one.metrics.keys() & other.metrics.keys()
        if (name in _COUNTED and one.metrics[name] != other.metrics[name])
        or (name in _SMOOTH and _apart(one.metrics[name], other.metrics[name]))
    ]
    counts = one.per_class and other.per_class and one.per_class != other.per_class
    return [*sorted(differ), *(["per_class"] if counts else [])]


def _apart(one: float | None, other: float | None) -> bool:
    """Return whether two numbers differ by more than rounding; a number that is missing differs from none."""
    return one is not None and other is not None and abs(one - other) > _ROUNDING * max(1.0, abs(one))


def _fields(one: Record, other: Record, names: Iterable[str]) -> list[str]:
    def text(value: Any) -> str:
        return f" ({value:.4f})" if isinstance(value, float) else ""

    pairs = ((name, getattr(one, name), getattr(other, name)) for name in names)
    return [f"{name}{text(a)} and{text(b)}" if text(a) else name for name, a, b in pairs if a != b]
