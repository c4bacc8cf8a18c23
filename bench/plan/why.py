"""Why a cell is to do: never run, stale (something in its key changed), or failed before; and which done
cells have drifted (a built-in method's source changed, its version did not). No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from bench.plan.cells import Plan, Planned
from bench.plan.rounds import Todo
from bench.records import places, store
from bench.records.keys import plain
from bench.records.types import Failure, FitRecord, Record
from bench.run import provenance
from bench.run.execute import label, recorded
from bench.run.provenance import Conditions

_SAME = ("shots", "seed", "prompts", "protocol", "preset", "classes")


def reasons(todo: Iterable[Todo]) -> Iterator[str]:
    """One line a cell: what failed, or which parts of its key differ from the nearest record of the same
    coordinates.
    """
    known: dict[Path, list[Record]] = {}  # each folder is read once
    for t in todo:
        if t.stored is not None:
            yield f"{label(t.fit)}: {_evaluations(t)}"
            continue
        if t.fit.where not in known:
            known[t.fit.where] = [found for _, found in store.within(t.fit.where)]
        yield f"{label(t.fit)}: {_reason(t.fit, known[t.fit.where])}"


def _reason(fit: Planned, records: list[Record]) -> str:
    nearest: list[list[str]] = []
    for found in records:
        if isinstance(found, Failure) and found.key == fit.key:
            return f"{_failed(found)}; the fit and what follows are tried again"
        parts = found.parts if isinstance(found, FitRecord | Failure) else None
        if parts is None or any(getattr(found.cell, k) != getattr(fit.cell, k) for k in _SAME):
            continue
        if found.key == fit.key:
            return "recorded, and made anew (--fresh)"
        nearest.append(
            _differences(msgspec.to_builtins(parts), msgspec.to_builtins(fit.parts, enc_hook=plain))
        )
    if not nearest:
        return "never run"
    closest: list[str] = min(nearest, key=len)
    return f"stale: {', '.join(closest)}"


def _evaluations(t: Todo) -> str:
    """What is known of the evaluations that a fitted cell lacks."""
    failures = []
    for e in t.evaluations:
        found = store.read(places.evaluation_path(t.fit.where, t.fit.key, e.key))
        if isinstance(found, Failure):
            failures.append(f"{_failed(found)} on {e.target.name}")
    rest = len(t.evaluations) - len(failures)
    lines = [f"{'; '.join(failures)}; the evaluation is tried again"] if failures else []
    return "; ".join([*lines, *([f"fitted, {rest} evaluations are missing"] if rest else [])])


def _failed(found: Failure) -> str:
    return f"failed before ({found.stage}): {found.error}"


def drifted(plan: Plan) -> list[str]:
    """One line for each method whose recorded fits were made by another source file under the same
    version.
    """
    lines = {}
    for fit in plan.fits:
        found = None if fit.parts.source else recorded(fit)
        if (
            found
            and found.provenance.source
            and found.provenance.source != provenance.source_digest(fit.method)
        ):
            lines[fit.method.name] = (
                f"{fit.method.name}: drifted: its source changed since its records were made, its version "
                f"({fit.method.version}) did not; if numbers may change, raise the version"
            )
    return list(lines.values())


def shadowed(plan: Plan) -> int:
    """How many recorded fits are older than a fit of the same coordinates and settings under another key,
    which tables show.
    """
    newest: dict[tuple[Any, ...], tuple[int, str]] = {}
    seen: set[Path] = set()
    fits = [found for fit in plan.fits if (found := recorded(fit))]
    for fit in plan.fits:
        if fit.where not in seen:
            seen.add(fit.where)
            for _, other in store.within(fit.where):
                if isinstance(other, FitRecord):
                    newest[_row(other)] = max(
                        newest.get(_row(other), (-1, "")), (other.provenance.order, other.key)
                    )
    return sum(newest.get(_row(found), (0, found.key))[1] != found.key for found in fits)


def _row(fit: FitRecord) -> tuple[Any, ...]:
    """What tables tell rows and columns by, so that of two such fits one is shown."""
    return (
        fit.cell,
        msgspec.json.encode(fit.changed, order="sorted"),
        fit.parts.encode_dtype,
        tuple(fit.parts.after),
    )


def before(plan: Plan, fresh: bool = False) -> set[tuple[str, Conditions]]:
    """The conditions, by backbone, of what is recorded in the rows of tables that a plan's cells belong to.

    ``fresh``: what the plan makes anew is left out.
    """
    found: set[tuple[str, Conditions]] = set()
    anew = {fit.key for fit in plan.fits} if fresh else set()
    rows = {(fit.where, fit.cell.prompts, fit.cell.protocol, fit.cell.preset) for fit in plan.fits}
    for where in dict.fromkeys(fit.where for fit in plan.fits):
        for _, record in store.within(where):
            cell, key = record.cell, record.key if isinstance(record, FitRecord) else record.fit
            if (
                not isinstance(record, Failure)
                and key not in anew
                and (where, cell.prompts, cell.protocol, cell.preset) in rows
            ):
                found.add((cell.backbone, provenance.conditions(record.provenance)))
    return found


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Dotted names of what differs between two key parts, with short values."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(k for k in new if k not in old)]
        return [
            d for k in keys for d in _differences(old.get(k), new.get(k), f"{name}.{k}" if name else str(k))
        ]
    if _plain(old) == _plain(new):
        return []
    return [f"{name} {_short(old)} -> {_short(new)}"]


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:21] + "..."
