"""Check that a record lies in its place, has its own key, and holds numbers that are possible together.

The checksum (bench.records.codec) shows accidental changes. The checks here also find a record that was
changed together with its checksum, or copied to the place of another. Predictions are checked by
bench.records.outcomes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from operator import attrgetter
from typing import NamedTuple

import msgspec
import numpy as np

from bench.names import few, shown
from bench.records import outcomes, places
from bench.records.keys import EvaluationKey, FitKey
from bench.records.types import EvaluationRecord, Failure, FitRecord, Record

_FOLDER = r"(?!\.+/)[\w.-]+"
# The path below ``runs/``: <backbone>/<dataset>/<method>/<fit>.json or .../<fit>-<evaluation>.json.
_PLACE = re.compile(rf"({_FOLDER})/({_FOLDER})/({_FOLDER})/([0-9a-f]{{20}}(?:-[0-9a-f]{{20}})?)\.json")
_ROUNDING = 1e-9
_encoder = msgspec.json.Encoder(order="sorted")

NO_PLACE = "not a place of a record: <backbone>/<dataset>/<method>/<key>.json"


class Bad(NamedTuple):
    """A damaged or misplaced file, or a line of one (``what``), and the reason (``why``)."""

    what: str
    why: str

    @property
    def line(self) -> str:
        """Return both in one line."""
        return f"{self.what}: {self.why}"


def said(bad: list[Bad], most: int = 3) -> str:
    """Return in one line the first few names with their reasons, then a count of the others."""
    return few((f"{one.what} ({one.why})" for one in bad), most, between="; ")


def is_place(at: str) -> bool:
    """Return whether a path below ``runs/`` is one that a record may have."""
    return _PLACE.fullmatch(at) is not None


def fault(at: str, record: Record) -> str:
    """Return what is wrong with the record at ``at``, a path below ``runs/``, or "" if nothing is."""
    found = _PLACE.fullmatch(at)
    if found is None:
        return NO_PLACE
    backbone, dataset, method, name = found.groups()
    if name != _file_stem(record):
        return "its file has the name of another record"
    cell = record.cell
    if method != places.safe(cell.method):
        return f"it lies among the records of another method, its own is {shown(cell.method)}"
    if not _is_folder_of(dataset, cell.dataset) or not _is_folder_of(backbone, cell.backbone):
        return f"it lies elsewhere than records of {shown(cell.dataset)} with {shown(cell.backbone)} do"
    return _key_fault(record) or _numbers_fault(record)


def fault_beside(record: EvaluationRecord, fit: FitKey) -> str:
    """Return why an evaluation does not belong to the fit that it names, or "" if it does."""
    cell = record.cell
    if (cell.method, cell.shots, cell.seed, cell.protocol) != _coordinates(fit):
        return "its method, shots, seed or protocol are not those of its fit"
    if record.parts.target == fit.dataset and record.target != cell.dataset:
        return "the name of its test set is not that of its dataset"
    return ""


def lacking(key: str, fits: Mapping[str, FitRecord]) -> str:
    """Return the key of the first fit without a record: the fit of this key, or one that it builds on.

    Return "" if all of them are in ``fits``. These records say what an evaluation was made with, so an
    evaluation that lacks one of them is left out of tables.
    """
    if key not in fits:
        return key
    return next(filter(None, (lacking(below, fits) for below in fits[key].parts.after.values())), "")


def fault_of_fits(record: Record, fits: Mapping[str, FitRecord]) -> str:
    """Return what is wrong between a record and the fits that it is built on; empty if nothing is.

    ``fits``: all fits of its results folder by key. Nothing is wrong with a failure.
    """
    if isinstance(record, Failure):
        return ""
    if lacking(record.key if isinstance(record, FitRecord) else record.fit, fits):
        return "there is no record of its fit, or of one that it builds on"
    return "" if isinstance(record, FitRecord) else fault_beside(record, fits[record.fit].parts)


_coordinates = attrgetter("method", "shots", "seed", "protocol")


def _file_stem(record: Record) -> str:
    fit = record.key if isinstance(record, FitRecord) else record.fit
    alone = isinstance(record, FitRecord) or (isinstance(record, Failure) and record.of == "fit")
    return fit[: places.SHORT] if alone else f"{fit[: places.SHORT]}-{record.key[: places.SHORT]}"


def _is_folder_of(folder: str, name: str) -> bool:
    """Return whether records of a dataset or backbone with this name may lie in this folder.

    If several have the same name, digits are added to it, but not always to the folder. Example: records of
    ``birds-4f1c2a`` lie in ``birds``.
    """
    safe = places.safe(name)
    return safe == folder or safe.startswith(f"{folder}-")


def _key_fault(record: Record) -> str:
    """Return how a record, its key and the parts of the key contradict each other, or "" if they agree."""
    parts, cell = record.parts, record.cell
    if parts is not None and not _digest_is(parts, record.key):
        return "its key is not that of what it was made with"
    if isinstance(record, EvaluationRecord):
        return "" if record.parts.fit == record.fit else "it is of one fit, and its key of another"
    if isinstance(record, Failure) and record.of == "fit" and record.key != record.fit:
        return "it is of one fit, and its key of another"
    ours = (cell.method, cell.shots, cell.seed, cell.protocol)
    if isinstance(parts, FitKey) and ours != _coordinates(parts):
        return "its method, shots, seed or protocol are not those of its key"
    return ""


def _digest_is(parts: FitKey | EvaluationKey, key: str) -> bool:
    """Return whether ``key`` is the digest of ``parts``.

    The digest of msgspec's bytes is tried first, because it takes a third of the time. It is the same unless
    msgspec writes a number differently.
    """
    return hashlib.sha256(_encoder.encode(parts)).hexdigest() == key or parts.digest() == key


def _numbers_fault(record: Record) -> str:
    """Return which numbers of a record contradict each other, or "" if none do.

    The range of each number is checked by its type.
    """
    if isinstance(record, EvaluationRecord):
        if record.n < 1:
            return "it is of no test image"
        if record.top5 is not None and record.top5 < record.top1 - _ROUNDING:
            return "its top-5 accuracy is below its top-1 accuracy"
        return _outputs_fault(record)
    return ""


def _outputs_fault(record: EvaluationRecord) -> str:
    """Return how a record, its metrics, counts by class and named arrays contradict each other, or ""."""
    counts, T = record.per_class, record.temperature
    if odd := [name for name in record.outputs if name not in outcomes.OUTPUTS and name != outcomes.LOGITS]:
        return f"it names arrays that are not known ({', '.join(map(shown, odd))})"
    arrays = ("top1", "labels", *record.outputs) if record.outputs else ()  # older records name none
    if unsealed := [name for name in arrays if name not in record.predictions]:
        return f"it has no checksum of {', '.join(unsealed)}"
    if record.outputs and (counts is None or "classes" not in record.outputs):
        return "it names arrays without counts by class, or without the best classes"
    if ("lse_t" in record.outputs) and T is None:
        return "it names arrays at a temperature, and no temperature"
    if counts is None:
        return ""
    images, right, predicted = (np.array(x) for x in (counts.images, counts.right, counts.predicted))
    if not len(images) == len(right) == len(predicted) or (right > np.minimum(images, predicted)).any():
        return "its counts by class are not possible together"
    if images.sum() != record.n or predicted.sum() != record.n:
        return "its counts by class are not of its test images"
    size, there = images + predicted, images > 0
    told = {
        "top1": right.sum() / record.n,
        **({} if record.top5 is None else {"top5": record.top5}),
        "balanced": (right[there] / images[there]).mean(),
        "macro-f1": (2.0 * right[size > 0] / size[size > 0]).mean(),
    }
    wrong = [name for name, x in told.items() if abs(record.metrics.get(name, x) - x) > _ROUNDING]
    if abs(told["top1"] - record.top1) > _ROUNDING or wrong:
        return f"its counts by class give another {' and '.join(wrong or ['accuracy'])}"
    return ""
