"""Which records count where newer ones replace older ones: numbers of different makes are never mixed in a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench.files import digest

Row = dict[str, Any]
CELL = ("method", "dataset", "target", "shots", "seed", "backbone", "prompts", "protocol", "preset", "variant")


class Made(NamedTuple):
    """What a number was made with, beyond the coordinates of its cell.

    ``versions``: of the method and of those it builds on, by name. ``weights``: digest of the backbone's. ``content``:
    digests of the dataset and of the test set, by name. ``setup``: digest of the settings and recipes of the same methods,
    which differs between the seeds of a row only where the program's own defaults have changed.
    """

    versions: Mapping[str, int]
    weights: str
    content: Mapping[str, str]
    setup: str


def below(fit: Mapping[str, Any], fits: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The fits that a fit builds on, as far as their records are there."""
    for key in fit.get("parts", {}).get("after", {}).values():
        if key in fits:
            yield fits[key]
            yield from below(fits[key], fits)


def made(evaluation: Mapping[str, Any], fit: Mapping[str, Any], fits: Mapping[str, Any]) -> Made:
    """What an evaluation's number was made with."""
    chain = [fit, *below(fit, fits)]
    parts = fit.get("parts", {})
    content = {evaluation["cell"]["dataset"]: parts.get("dataset"), evaluation.get("target"): evaluation.get("target_digest")}
    return Made(
        {f["cell"]["method"]: f["parts"]["version"] for f in chain if "parts" in f},
        parts.get("weights", ""),
        {name: found for name, found in content.items() if name and found},
        digest([[f.get("parts", {}).get(part) for part in ("settings", "recipe")] for f in chain]),
    )


def time_of(path: Path) -> str:
    """When a record that does not say was written: its file's time, or nothing for one without a file."""
    if not path.is_file():
        return ""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="milliseconds")


def only(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """The rows that count, and a line for each kind of rows that newer ones replace."""
    notes: list[str] = []
    latest_version: dict[str, int] = {}
    for row in rows:
        for method, version in row["made"].versions.items():
            latest_version[method] = max(version, latest_version.get(method, version))

    def old_version(row: Row) -> list[str]:
        old = {m: v for m, v in row["made"].versions.items() if v < latest_version[m]}
        return [f"{m} version {v} (there is {latest_version[m]})" for m, v in old.items()]

    rows = _drop(rows, old_version, notes)
    weights = _latest(rows, lambda row: {row["backbone"]: row["made"].weights} if row["made"].weights else {})

    def old_weights(row: Row) -> list[str]:
        return [f"older weights of {row['backbone']}"] if _old(row["made"].weights, weights, row["backbone"]) else []

    rows = _drop(rows, old_weights, notes)
    content = _latest(rows, lambda row: row["made"].content)

    def old_content(row: Row) -> list[str]:
        return [f"an older content of {name}" for name, found in row["made"].content.items() if _old(found, content, name)]

    rows = _drop(rows, old_content, notes)
    setups = _latest(rows, lambda row: {_seedless(row): row["made"].setup})

    def old_setup(row: Row) -> list[str]:
        old = row["made"].setup != setups[_seedless(row)]
        return [f"{row['method']} with settings that are not the method's own any more"] if old else []

    rows = _drop(rows, old_setup, notes)
    newest: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        cell = tuple(row[c] for c in CELL)
        if cell not in newest or row["written"] >= newest[cell]["written"]:
            newest[cell] = row
    kept = {id(row) for row in newest.values()}
    return _drop(rows, lambda row: [] if id(row) in kept else ["cells that were run again"], notes), notes


def _old(found: str, newest: Mapping[str, str], name: str) -> bool:
    return bool(found) and found != newest[name]


def _latest(rows: list[Row], named: Callable[[Row], Mapping[str, str]]) -> dict[str, str]:
    """The digest that the newest record gives to each name."""
    found: dict[str, tuple[str, str]] = {}
    for row in rows:
        for name, value in named(row).items():
            found[name] = max(found.get(name, ("", "")), (row["written"], value))
    return {name: value for name, (_, value) in found.items()}


def _seedless(row: Row) -> str:
    """The coordinates of a row of a table on one dataset: whatever its seeds share."""
    return "\n".join(str(row[c]) for c in CELL if c not in ("seed", "target"))


def _drop(rows: list[Row], reasons: Callable[[Row], list[str]], notes: list[str]) -> list[Row]:
    counts: Counter[str] = Counter()
    kept = []
    for row in rows:
        why = reasons(row)
        counts.update(why[:1])
        if not why:
            kept.append(row)
    notes += [f"left out: {n} record{'s' if n > 1 else ''} of {reason}" for reason, n in counts.items()]
    return kept
