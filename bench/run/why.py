"""Why a cell is to do: never run, stale (something in its key changed), or failed before; and which done cells have
drifted (the method's source changed, its version did not). No torch."""

from __future__ import annotations

from typing import Any

from bench.run import provenance, record
from bench.run.execute import Todo, label
from bench.run.plan import Plan

_SAME = ("shots", "seed", "prompts", "protocol", "preset")


def reasons(t: Todo) -> str:
    """One line: the cell, and which parts of its key differ from the nearest record of the same coordinates."""
    cell = t.fit.cell
    if t.stored is not None:
        return f"{label(t.fit)}: fitted, {len(t.evaluations)} evaluations are missing"
    nearest: list[list[str]] = []
    for path in sorted(t.fit.where.glob("*.json")):
        found = record.read(path)
        if not found or found.get("kind") != "fit" or any(found["cell"].get(k) != getattr(cell, k) for k in _SAME):
            continue
        if found["key"] == t.fit.key:
            return f"{label(t.fit)}: failed before: {found.get('error', 'unknown error')}"
        nearest.append(_differences(found["parts"], dict(t.fit.parts)))
    if not nearest:
        return f"{label(t.fit)}: never run"
    closest = min(nearest, key=lambda found: len(found))
    return f"{label(t.fit)}: stale: {', '.join(closest)}"


def drifted(plan: Plan) -> list[str]:
    """One line for each method whose recorded fits were made by another source file under the same version."""
    lines = {}
    for fit in plan.fits:
        found = record.done(record.fit_path(fit.where, fit.key), fit.key)
        if found and found["provenance"]["source"] != provenance.source_digest(fit.method):
            lines[fit.method.name] = (
                f"{fit.method.name}: drifted: its source changed since its records were made, its version "
                f"({fit.method.version}) did not; if numbers may change, raise the version"
            )
    return list(lines.values())


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Dotted names of what differs between two key parts, with short values."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(k for k in new if k not in old)]
        return [d for k in keys for d in _differences(old.get(k), new.get(k), f"{name}.{k}" if name else str(k))]
    old, new = (list(v) if isinstance(v, tuple) else v for v in (old, new))
    if old == new or _plain(old) == _plain(new):
        return []
    return [f"{name} {_short(old)} -> {_short(new)}"]


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:21] + "..."
