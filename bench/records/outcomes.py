"""Compute from what is kept of every test image what a record says, and compare the two.

Every recorded accuracy is checked here, image by image, before it is printed, and so are the counts by class,
likelihoods and Brier scores. The other metrics of bench.metrics take much longer to compute, so they are
checked when all arrays of an evaluation are read (``of_arrays`` with ``every``). ``OUTPUTS`` lists the arrays
that an evaluation may keep beside its predictions and labels.

Legend: n test images, K classes, C evaluations whose predictions are columns of one packed array.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import metrics
from bench.files import Stamp, stamp_if_there
from bench.records import codec
from bench.records.types import EvaluationRecord, PerClass
from bench.unpack import GIB, Torn, npz

Arrays = dict[str, NDArray[Any]]
TOP = 5  # best classes of an image that are kept
LOGITS = "logits"
# Arrays with a row for each image, beside ``top1`` and ``labels``: their types and columns (0: a vector).
OUTPUTS: Mapping[str, tuple[np.dtype[Any], int]] = {
    "classes": (np.dtype(np.int16), TOP),
    "logp": (np.dtype(np.float32), TOP),
    "rank": (np.dtype(np.uint16), 0),
    "true_logp": (np.dtype(np.float32), 0),
    "squares": (np.dtype(np.float32), 0),
    "lse_t": (np.dtype(np.float32), 0),
    "squares_t": (np.dtype(np.float32), 0),
}
QUICK = ("nll", "nll-after", "brier", "brier-after")  # metrics that are computed at every load
_ROUNDING = 1e-9
_HEADERS = 8192  # most bytes of the headers of an npz file's arrays


class Outcome(NamedTuple):
    """What the arrays of an evaluation on n images say.

    ``sums``: the checksum of each array by name. ``shares``: the accuracies by name (``top1``, ``top5``).
    ``bits``: which images are right, eight images in a byte, because the outcomes of all evaluations of a
    folder are held in memory at once. ``counts``: the digest of the counts by class (``counts_digest``).
    ``told``: the metrics by name, empty if only the predictions are kept.
    """

    sums: Mapping[str, str]
    shares: Mapping[str, float]
    n: int
    bits: bytes
    counts: str = ""
    told: Mapping[str, float] = {}

    @property
    def right(self) -> NDArray[np.bool_]:
        """Return which images are right (n,)."""
        return np.unpackbits(np.frombuffer(self.bits, np.uint8), count=self.n).astype(bool)


class _Form(NamedTuple):
    """What a record says of its arrays: images, classes (0: unknown), names beside the predictions, and T.

    Records that are older than ``OUTPUTS`` have ``top5`` in their place, and no counts by class.
    """

    n: int
    K: int
    names: tuple[str, ...]
    temperature: float | None


def _form(record: EvaluationRecord) -> _Form:
    K = len(record.per_class.images) if record.per_class else 0
    return _Form(record.n, K, names_of(record), record.temperature)


def names_of(record: EvaluationRecord) -> tuple[str, ...]:
    """Return the names of the arrays beside ``top1`` and ``labels`` in an evaluation's own file.

    A record that is older than counts by class has ``top5``.
    """
    return tuple(record.outputs) or (() if record.per_class else ("top5",))


def read(file: Path, record: EvaluationRecord) -> Arrays:
    """Return all arrays of an evaluation's own file, the logits too. Raises Torn if the file is damaged."""
    return _arrays(file, _form(record))


def _arrays(file: Path, form: _Form) -> Arrays:
    """Return the arrays of an evaluation's own file.

    Raises Torn if the file is damaged, or larger than the arrays of n images can be.
    """
    n, per_image = form.n, sum(kind.itemsize * max(1, columns) for kind, columns in OUTPUTS.values())
    most = n * (4 + 2 * TOP + per_image + (4 * form.K if LOGITS in form.names else 0)) + _HEADERS
    arrays = npz(file, ("top1", "labels", *form.names), min(64 * GIB, most))
    for name, x in arrays.items():
        if name == LOGITS:
            whole = x.dtype in (np.float16, np.float32) and x.shape == (n, form.K)
        elif name in OUTPUTS:
            kind, columns = OUTPUTS[name]
            whole = x.dtype == kind and x.shape == ((n, columns) if columns else (n,))
        else:
            whole = _of_classes(x) and x.shape == ((n, TOP) if name == "top5" else (n,))
        if not whole:
            raise Torn(f"{file}: damaged ({name} is not of {n} images)")
    return arrays


def of_file(file: Path, record: EvaluationRecord) -> Outcome:
    """Return the outcome of an evaluation by its own file. Raises Torn if the file is damaged.

    Logits are left out, because they take much longer to read than everything else.
    """
    form = _form(record)
    kept = tuple(name for name in form.names if name != LOGITS)
    return _of_file(file, stamp_if_there(file), form._replace(names=kept))


@lru_cache(maxsize=65536)
def _of_file(file: Path, stamped: Stamp | None, form: _Form) -> Outcome:
    try:
        return of_arrays(_arrays(file, form), form.K, form.temperature)
    except Torn:
        raise
    except ValueError as error:
        raise Torn(f"{file}: damaged ({error})") from error


def of_all(arrays: Arrays, record: EvaluationRecord) -> Outcome:
    """Return the outcome of all arrays of an evaluation, with every metric.

    Raises ValueError if they contradict each other.
    """
    form = _form(record)
    return of_arrays(arrays, form.K, form.temperature, every=True)


def of_arrays(arrays: Arrays, K: int = 0, temperature: float | None = None, every: bool = False) -> Outcome:
    """Return the outcome of the arrays of one evaluation; ``K``: the number of classes, 0 if it is unknown.

    ``every``: whether ``told`` has all metrics, and not only those of ``QUICK``. Raises ValueError if the
    arrays contradict each other.
    """
    top1, labels = arrays["top1"], arrays["labels"]
    name = "classes" if "classes" in arrays else "top5"
    sums = {each: codec.checksum_of(x) for each, x in arrays.items()}
    right = top1 == labels
    shares, told, counts = {"top1": float(right.mean())}, {}, ""
    if name in arrays:
        best = arrays[name]
        if not np.array_equal(best[:, 0], top1):
            raise ValueError(f"{name} does not begin with top1")
        shares["top5"] = float((best == labels[:, None]).any(1).mean())
    if K:
        kept = outputs(arrays, K, temperature)
        _require_agreement(kept)
        told = metrics.values(kept) if every else metrics.values(kept, QUICK)
        counts = counts_digest(*metrics.per_class(top1, labels, K))
    return Outcome(sums, shares, len(right), np.packbits(right).tobytes(), counts, told)


def outputs(arrays: Mapping[str, NDArray[Any]], K: int, temperature: float | None) -> metrics.Outputs:
    """Return the arrays of an evaluation on K classes as ``bench.metrics`` takes them.

    Raises ValueError if they hold what no probabilities can be.
    """
    further = {name: arrays[name] for name in OUTPUTS if name in arrays}
    return metrics.Outputs(arrays["labels"], arrays["top1"], K, **further, temperature=temperature)


def _require_agreement(kept: metrics.Outputs) -> None:
    """Raise ValueError if the arrays of an evaluation cannot all be of the same probabilities."""
    if kept.classes is None or kept.logp is None or kept.rank is None or kept.true_logp is None:
        return
    there = np.arange(kept.classes.shape[1]) < kept.K
    if (kept.classes[:, ~there] != -1).any() or (kept.classes[:, there] < 0).any():
        raise ValueError("classes is not padded as the number of classes says")
    logp = kept.logp[:, there]
    if not np.isfinite(logp).all() or (np.diff(logp, axis=1) > 0).any():
        raise ValueError("logp does not fall from the best class on")
    hit = kept.classes == kept.labels.astype(np.int64)[:, None]
    place = np.where(hit.any(1), hit.argmax(1), -1)
    inside = place >= 0
    if (kept.rank[inside] != place[inside]).any() or (kept.rank[~inside] < there.sum()).any():
        raise ValueError("rank is not that of the true class")
    of_true = kept.logp[np.arange(kept.n), np.maximum(place, 0)]
    if (of_true[inside] != kept.true_logp[inside]).any():
        raise ValueError("true_logp is not that of the true class")
    if (kept.true_logp[~inside] > logp[~inside, -1]).any():
        raise ValueError("true_logp is above that of better classes")


def counts_digest(images: Any, right: Any, predicted: Any) -> str:
    """Return a digest of counts by class, in which classes at the end that never occur do not count."""
    table = np.array([images, right, predicted], np.int64)
    seen = np.flatnonzero(table.any(0))
    table = np.ascontiguousarray(table[:, : seen[-1] + 1 if len(seen) else 0], "<i8")
    return hashlib.sha256(table.tobytes()).hexdigest()


def _counts_of_columns(
    columns: NDArray[np.uint16], labels: NDArray[Any], right: NDArray[np.bool_]
) -> list[str]:
    """Return the digest of the counts by class of each evaluation; ``columns`` and ``right`` (C, n)."""
    K = int(max(columns.max(initial=0), labels.max())) + 1
    images = np.bincount(labels, minlength=K)
    # bincount makes 64-bit numbers of what it counts, so it gets one evaluation at a time.
    return [
        counts_digest(images, np.bincount(labels[hits], minlength=K), np.bincount(predicted, minlength=K))
        for predicted, hits in zip(columns, right, strict=True)
    ]


def of_columns(top1: NDArray[Any], labels: NDArray[Any]) -> list[Outcome]:
    """Return the outcome of each column of packed predictions (n, C), with labels (n,).

    Raises ValueError if the arrays are not of this shape, or hold no numbers of classes.
    """
    if top1.ndim != 2 or labels.shape != top1.shape[:1] or not len(labels):
        raise ValueError("not a row an image, a column an evaluation")
    if not _of_classes(top1) or not _of_classes(labels):
        raise ValueError("not numbers of classes")
    right = np.ascontiguousarray((top1 == labels[:, None]).T)
    shares = right.mean(1)
    bits = np.packbits(right, axis=1)
    columns = np.ascontiguousarray(top1.T, "<u2")  # as checksum_of takes them, made once for all
    of_labels = codec.checksum_of(labels)
    counts = _counts_of_columns(columns, labels, right)
    return [
        Outcome(
            {"top1": codec.checksum_of(column), "labels": of_labels},
            {"top1": float(shares[i])},
            len(labels),
            bits[i].tobytes(),
            counts[i],
        )
        for i, column in enumerate(columns)
    ]


def fault(record: EvaluationRecord, outcome: Outcome) -> str:
    """Return why predictions do not belong to a record, or "" if they do and give its numbers."""
    if record.n != outcome.n:
        return f"they are of {outcome.n} images, it says {record.n}"
    other = [name for name, told in record.predictions.items() if outcome.sums.get(name, told) != told]
    if other:
        return f"{' and '.join(other)} differ"
    for name, share in outcome.shares.items():
        told = getattr(record, name)
        if told is None:
            return f"they give a {name} accuracy, it says that none is known"
        if abs(share - told) > _ROUNDING:
            return f"they give a {name} accuracy of {share:.4f}, it says {told:.4f}"
    if record.per_class is not None and outcome.counts != _digest_of(record.per_class):
        return "they give other counts by class"
    for name, value in outcome.told.items():  # a record may be older than some metrics
        if abs(value - record.metrics.get(name, value)) > _ROUNDING * max(1.0, abs(value)):
            return f"they give {name} {value:.6g}, it says {record.metrics[name]:.6g}"
    return ""


def _digest_of(counts: PerClass) -> str:
    return counts_digest(counts.images, counts.right, counts.predicted)


def _of_classes(x: NDArray[Any]) -> bool:
    return x.dtype in (np.uint8, np.uint16)
