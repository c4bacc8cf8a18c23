"""Explain why a cell is to do, and find finished cells that have drifted, without torch.

A cell is to do because it never ran, because it is stale (something in its key changed) or because it failed
before. It has drifted if the code of its method, one of the program's own, has changed since and the
method's version has not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from bench.names import counted, short
from bench.plan.cells import Plan, Planned, label
from bench.plan.earlier import Earlier
from bench.plan.todo import Fresh, Todo, kind, recorded
from bench.records import places, store, today
from bench.records.conditions import Conditions, conditions
from bench.records.keys import ALL, plain
from bench.records.types import EvaluationRecord, Failure, FitRecord, Record
from bench.sources import code_of

_LONG = 24  # most characters of a value that are shown
_SAME = ("shots", "seed", "prompts", "protocol", "preset", "classes")


def reasons(todo: Iterable[Todo], earlier: Earlier, fresh: Fresh = False) -> Iterator[str]:
    """Yield one line per cell: what failed, or how its key differs from the nearest record.

    Only records of the cell's coordinates are compared. ``fresh``: which records do not count.
    """
    for t in todo:
        records = earlier.within(t.fit.where)
        if t.stored is not None:
            yield f"{label(t.fit)}: {_evaluations(t, records, fresh)}"
        else:
            yield f"{label(t.fit)}: {_reason(t.fit, records, fresh)}"


def _reason(fit: Planned, records: list[Record], fresh: Fresh) -> str:
    """Return why a fit is to do."""
    nearest: list[list[str]] = []
    for record in records:
        if isinstance(record, Failure) and record.key == fit.key:
            path = places.fit_path(fit.where, fit.key)
            return f"{_failed(record, path)}; the fit and what follows are tried again"
        parts = record.parts if isinstance(record, FitRecord | Failure) else None
        if isinstance(record, FitRecord | Failure) and _of_another_dataset(record, fit):
            continue
        if parts is None or any(getattr(record.cell, k) != getattr(fit.cell, k) for k in _SAME):
            continue
        if record.key == fit.key:
            return f"recorded{_why_anew(kind(record), fresh)}"
        nearest.append(
            _differences(msgspec.to_builtins(parts), msgspec.to_builtins(fit.parts, enc_hook=plain))
        )
    if not nearest:
        return "never run"
    closest: list[str] = min(nearest, key=len)
    return f"stale: {', '.join(closest)}"


def _of_another_dataset(record: FitRecord | Failure, fit: Planned) -> bool:
    """Return whether a record belongs to another dataset of the same name."""
    theirs, ours = record.dataset_identity, fit.dataset.spec.identity
    same = record.parts is not None and record.parts.dataset == fit.dataset.digest
    return bool(theirs and ours) and theirs != ours and not same


def _why_anew(on: str, fresh: Fresh) -> str:
    """Return why a fit or evaluation that was recorded ``on`` a kind of device is made again."""
    if not isinstance(fresh, str):
        return ", and made anew (--fresh)"
    below = " (what it builds on was not)" if on == fresh else ""
    return f" on {on}{below}, and made anew (--fresh-device)"


def _evaluations(t: Todo, records: list[Record], fresh: Fresh) -> str:
    """Return why a fitted cell lacks evaluations: they failed, are made again, or were never made."""
    failures = []
    for e in t.evaluations:
        path = places.evaluation_path(t.fit.where, t.fit.key, e.key)
        if (record := store.failure(path)) is not None:
            failures.append(_failed(record, path, f"test set {e.target.name}; "))
    keys = {e.key for e in t.evaluations}
    anew = Counter(kind(r) for r in records if isinstance(r, EvaluationRecord) and r.key in keys and fresh)
    rest = len(t.evaluations) - len(failures) - anew.total()
    lines = [f"{'; '.join(failures)}; the evaluation is tried again"] if failures else []
    lines += [f"{counted(n, 'evaluation')} recorded{_why_anew(on, fresh)}" for on, n in anew.items()]
    return "; ".join(
        [*lines, *([f"fitted, {counted(rest, 'evaluation is', 'evaluations are')} missing"] if rest else [])]
    )


def _failed(failure: Failure, path: Path, on: str = "") -> str:
    """Return the stage and error of a failure, and the path of its record."""
    return f"failed before ({failure.stage}): {failure.error} ({on}its record: {path})"


def drifted(plan: Plan) -> list[str]:
    """Return one line for each method whose code, but not its version, has changed since its records."""
    lines = {}
    for fit in plan.fits:
        record = recorded(fit)
        if record and today.drifted(record, code_of(fit.method)):
            lines[fit.method.name] = (
                f"{fit.method.name}: drifted: its source changed since its records were made, "
                f"its version ({fit.method.version}) did not; if numbers may change, raise the version"
            )
    return list(lines.values())


def shadowed(plan: Plan, earlier: Earlier) -> int:
    """Return how many recorded fits tables hide because a later fit has their coordinates and settings."""
    newest: dict[tuple[Any, ...], tuple[int, str]] = {}
    for where in dict.fromkeys(fit.where for fit in plan.fits):
        for other in earlier.within(where):
            if isinstance(other, FitRecord):
                here = (other.provenance.order, other.key)
                newest[_row(other)] = max(newest.get(_row(other), (-1, "")), here)
    shown = (fit for fit in plan.fits if fit.cell.shots != ALL)  # no table shows folds
    records = [record for fit in shown if (record := recorded(fit))]
    return sum(newest.get(_row(record), (0, record.key))[1] != record.key for record in records)


def _row(fit: FitRecord) -> tuple[Any, ...]:
    """Return what tables tell rows and columns apart by. They show only one of two fits that agree on it."""
    return (
        fit.cell,
        fit.dataset_identity,
        msgspec.json.encode(fit.changed, order="sorted"),
        fit.parts.encode_dtype,
        tuple(fit.parts.after),
    )


def elsewhere(plan: Plan, todo: Iterable[Todo], device: str) -> Counter[str]:
    """Return how many finished cells have a fit from another kind of device than ``device``, by kind."""
    left = {t.fit.key for t in todo}
    done = (recorded(fit) for fit in plan.fits if fit.asked and fit.key not in left)
    kinds = Counter(kind(record) for record in done if record)
    del kinds[device]
    return kinds


def before(plan: Plan, earlier: Earlier, fresh: Fresh = False) -> set[tuple[str, Conditions]]:
    """Return (backbone, conditions) of the records in those rows of tables to which the plan's cells belong.

    ``fresh``: which records do not count. Records that the plan makes anew are left out.
    """
    kept: set[tuple[str, Conditions]] = set()
    anew = {fit.key for fit in plan.fits if recorded(fit, fresh=fresh) is None} if fresh else set()
    rows = {(fit.where, fit.cell.prompts, fit.cell.protocol, fit.cell.preset) for fit in plan.fits}
    for where in dict.fromkeys(fit.where for fit in plan.fits):
        for record in earlier.within(where):
            if isinstance(record, Failure):
                continue
            cell, key = record.cell, record.key if isinstance(record, FitRecord) else record.fit
            if key not in anew and (where, cell.prompts, cell.protocol, cell.preset) in rows:
                kept.add((cell.backbone, conditions(record.provenance)))
    return kept


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Return what differs between two keys' parts, as dotted names with shortened values."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(k for k in new if k not in old)]
        return [
            d for k in keys for d in _differences(old.get(k), new.get(k), f"{name}.{k}" if name else str(k))
        ]
    if _plain(old) == _plain(new):
        return []
    return [f"{name} {short(str(old), _LONG)} -> {short(str(new), _LONG)}"]


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
