"""Why a cell is to do: never run, stale (something in its key changed), or failed before. No torch."""

from __future__ import annotations

from typing import Any

from bench.run import record
from bench.run.execute import Todo, label

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
