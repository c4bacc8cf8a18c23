"""Which records count where newer ones replace older ones; a table never mixes numbers of different makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from bench.files import digest
from bench.records.types import EvaluationRecord, Failure, FitRecord
from bench.report.coordinates import CELL, EVALUATION

_MOST = 4  # names of a conflict that are spelt out
V = TypeVar("V", str, tuple[tuple[str, str], ...])
Row = dict[str, Any]

# Parts of a fit key that all seeds of a row share. The others: the draw, the seed, and fields of ``Made``.
SETUP = (
    "settings",
    "recipe",
    "source",
    "engine",
    "preprocessing",
    "prompts",
    "sentences",
    "protocol",
    "encode_dtype",
    "classes",
    "draw_kind",
)


class Made(NamedTuple):
    """What a number was made with, beyond the coordinates of its cell.

    ``versions``: of the method and of those it builds on, by name. ``weights``: digest of the backbone's.
    ``content``: digests of the dataset and of the test set, by name. ``setup``: digests of whatever else is
    in the keys of the same methods, by name (``SETUP``); they differ between the seeds of a row only where
    something has changed since.
    """

    versions: Mapping[str, int]
    weights: str
    content: Mapping[str, str]
    setup: tuple[tuple[str, str], ...]


def below(fit: FitRecord, fits: Mapping[str, FitRecord]) -> Iterator[FitRecord]:
    """The fits that a fit builds on, as far as their records are there."""
    for key in dict.fromkeys(fit.parts.after.values()):
        if key in fits:
            yield fits[key]
            yield from below(fits[key], fits)


def made(record: EvaluationRecord | Failure, fit: FitRecord | None, fits: Mapping[str, FitRecord]) -> Made:
    """What a number was made with, as far as the record of its fit is there or a failed fit says it."""
    key = fit.parts if fit else record.parts if isinstance(record, Failure) else None
    chain = [fit, *below(fit, fits)] if fit else []
    content = {record.cell.dataset: key.dataset} if key else {}
    if isinstance(record, EvaluationRecord):
        content[record.target] = record.parts.target
    known = [(f.cell.method, f.parts) for f in chain] or ([(record.cell.method, key)] if key else [])
    return Made(
        {method: parts.version for method, parts in known},
        key.weights if key else "",
        {name: value for name, value in content.items() if value},
        tuple((name, digest([getattr(parts, name) for _, parts in known])) for name in SETUP),
    )


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
    weights = _latest(
        rows, lambda row: {row["backbone"]: row["made"].weights} if row["made"].weights else {}, notes
    )

    def old_weights(row: Row) -> list[str]:
        return (
            [f"older weights of {row['backbone']}"]
            if _old(row["made"].weights, weights, row["backbone"])
            else []
        )

    rows = _drop(rows, old_weights, notes)
    content = _latest(rows, lambda row: row["made"].content, notes)

    def old_content(row: Row) -> list[str]:
        return [
            f"an older content of {name}"
            for name, value in row["made"].content.items()
            if _old(value, content, name)
        ]

    rows = _drop(rows, old_content, notes)
    setups = _latest(rows, lambda row: {_seedless(row): row["made"].setup}, notes)

    def old_setup(row: Row) -> list[str]:
        newest = dict(setups[_seedless(row)])
        other = [name for name, value in row["made"].setup if value != newest[name]]
        if set(other) & {"settings", "recipe"}:
            return [f"{row['method']} with settings that are not the method's own any more"]
        return [f"{row['method']} of an older {' and '.join(other)}"] if other else []

    rows = _drop(rows, old_setup, notes)
    newest: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        cell = tuple(row[c] for c in EVALUATION)
        if cell not in newest or row["order"] >= newest[cell]["order"]:
            newest[cell] = row
    kept = {id(row) for row in newest.values()}
    again = {tuple(row[c] for c in EVALUATION): row for row in rows if id(row) not in kept}
    merged = [row for cell, row in again.items() if row["folder"] and row["folder"] != newest[cell]["folder"]]
    _note_merged([f"{row['method']} on {row['target']}" for row in merged], notes)
    return _drop(rows, lambda row: [] if id(row) in kept else ["cells that were run again"], notes), notes


def _old(value: str, newest: Mapping[str, str], name: str) -> bool:
    return bool(value) and value != newest[name]


def _latest(rows: list[Row], named: Callable[[Row], Mapping[str, V]], notes: list[str]) -> dict[str, V]:
    """The newest record's digest for each name; names on which merged folders disagree are noted."""
    newest: dict[str, tuple[int, V]] = {}
    folders: dict[str, dict[V, set[str]]] = {}
    for row in rows:
        for name, value in named(row).items():
            newest[name] = max(newest.get(name, (-1, value)), (row["order"], value))
            folders.setdefault(name, {}).setdefault(value, set()).add(row["folder"])
    latest = {name: value for name, (_, value) in newest.items()}
    others = {
        name: set().union(*by_value.values()) - by_value[latest[name]] - {""}
        for name, by_value in folders.items()
    }
    _note_merged([name.replace("\n", " ") for name, folder in others.items() if folder], notes)
    return latest


def _note_merged(names: list[str], notes: list[str]) -> None:
    """Note a merged folder that never had what counts now: no counter can say which of two is ahead."""
    if names:
        more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
        what = "; ".join(sorted(names)[:_MOST]) + more
        notes.append(
            f"merged folders disagree on {what}: "
            "what bears the later number counts (`bench pack` drops the rest)"
        )


def _seedless(row: Row) -> str:
    """The coordinates of a row of a table on one dataset: whatever its seeds share."""
    return "\n".join(str(row[c]) for c in (*CELL, "variant") if c != "seed")


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
