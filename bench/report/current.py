"""Choose which records count where newer ones replace older ones.

A table never mixes numbers that were made in different ways, for example by two versions of a method.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import msgspec

from bench.names import few
from bench.records.types import EvaluationRecord, Failure, FitRecord
from bench.report.coordinates import CELL, EVALUATION
from bench.report.wording import listed, shots_text

LEFT_OUT = "left_out"  # in a row that newer ones replace: why
_MOST = 4  # most names of a conflict in a note
V = TypeVar("V", str, bytes)
Row = dict[str, Any]

# Parts of a fit key that all seeds of a row share. The other parts are the draw, the seed and fields of
# ``Made``.
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
# What notes call these parts.
_PLAIN = {
    "source": "its source",
    "engine": "the harness",
    "preprocessing": "the preprocessing of images",
    "prompts": "the texts of its prompts",
    "sentences": "how prompts are put together",
    "encode_dtype": "the precision",
    "classes": "the classes",
    "draw_kind": "the way of drawing",
}
_LINE = tuple(c for c in (*CELL, "variant") if c != "seed")
_parts_of = attrgetter(*SETUP)
_encoder = msgspec.json.Encoder(order="sorted")


class Made(NamedTuple):
    """What a number was made with, beyond the coordinates of its cell.

    ``versions``: the version of the method and of each method that it builds on, by name. ``weights``: the
    digest of the backbone's weights. ``content``: digests of the dataset and of the test set, by name.
    ``setup``: whatever else is in the keys of these methods (``SETUP``), as JSON. The seeds of one row differ
    in it only if something has changed since.
    """

    versions: Mapping[str, int]
    weights: str
    content: Mapping[str, str]
    setup: bytes


def below(fit: FitRecord, fits: Mapping[str, FitRecord]) -> Iterator[FitRecord]:
    """Yield the fits that a fit builds on, as far as their records are there."""
    for key in dict.fromkeys(fit.parts.after.values()):
        if key in fits:
            yield fits[key]
            yield from below(fits[key], fits)


def made(record: EvaluationRecord | Failure, fit: FitRecord | None, fits: Mapping[str, FitRecord]) -> Made:
    """Return what a number was made with, as far as the record of its fit or of its failure says it."""
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
        _once(_encoder.encode([_parts_of(parts) for _, parts in known])),
    )


@lru_cache(maxsize=4096)
def _once(setup: bytes) -> bytes:
    """Return the first of equal setups, so that thousands of fits share a few objects."""
    return setup


def _differing(setup: bytes, other: bytes) -> list[str]:
    """List the names of ``SETUP`` in which two setups differ."""
    ours, theirs = (msgspec.json.decode(one) for one in (setup, other))
    return [name for i, name in enumerate(SETUP) if [key[i] for key in ours] != [key[i] for key in theirs]]


def only(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Return the rows that count, and a note for each kind of rows that newer ones replace."""
    notes: list[str] = []
    latest_version: dict[str, int] = {}
    for row in rows:
        for method, version in row["made"].versions.items():
            latest_version[method] = max(version, latest_version.get(method, version))

    def old_version(row: Row) -> str:
        old = ((m, v) for m, v in row["made"].versions.items() if v < latest_version[m])
        return next((f"of {m} version {v}, because version {latest_version[m]} is newer" for m, v in old), "")

    rows = _drop(rows, old_version, notes)
    weights = _latest(
        rows,
        lambda row: {row["backbone"]: row["made"].weights} if row["made"].weights else {},
        "the weights of {}".format,
        notes,
    )

    def old_weights(row: Row) -> str:
        old = _old(row["made"].weights, weights, row["backbone"])
        return f"made with older weights of {row['backbone']}" if old else ""

    rows = _drop(rows, old_weights, notes)
    content = _latest(rows, lambda row: row["made"].content, "the images of {}".format, notes)

    def old_content(row: Row) -> str:
        old = (name for name, value in row["made"].content.items() if _old(value, content, name))
        return next((f"made with older images of {name}, which have changed since" for name in old), "")

    rows = _drop(rows, old_content, notes)
    lines = {id(row): _seedless(row) for row in rows}
    setups = _latest(rows, lambda row: {lines[id(row)]: row["made"].setup}, _setup_text, notes)

    def old_setup(row: Row) -> str:
        newest = setups[lines[id(row)]]
        if row["made"].setup == newest:
            return ""
        other = _differing(row["made"].setup, newest)
        if set(other) & {"settings", "recipe"}:
            return f"of {row['method']} from before its default settings changed"
        what = listed([_PLAIN.get(name, name) for name in other])
        return f"of {row['method']} from before a change of {what}"

    rows = _drop(rows, old_setup, notes)
    cells = [tuple(row[c] for c in EVALUATION) for row in rows]
    newest: dict[tuple[Any, ...], Row] = {}
    for cell, row in zip(cells, rows, strict=True):
        if cell not in newest or row["order"] >= newest[cell]["order"]:
            newest[cell] = row
    kept = {id(row) for row in newest.values()}
    again = {cell: row for cell, row in zip(cells, rows, strict=True) if id(row) not in kept}
    merged = [row for cell, row in again.items() if row["folder"] and row["folder"] != newest[cell]["folder"]]
    _note_merged([f"{row['method']} on {row['target']}" for row in merged], notes)
    return _drop(rows, lambda row: "" if id(row) in kept else "of cells that were run again", notes), notes


def _old(value: str, newest: Mapping[str, str], name: str) -> bool:
    return bool(value) and value != newest[name]


def _latest(
    rows: list[Row], named: Callable[[Row], Mapping[str, V]], text: Callable[[str], str], notes: list[str]
) -> dict[str, V]:
    """Return the newest record's digest for each name, and note where merged folders disagree."""
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
        if len(by_value) > 1
    }
    _note_merged([text(name) for name, folder in others.items() if folder], notes)
    return latest


def _note_merged(names: list[str], notes: list[str]) -> None:
    """Note the names for which one of the merged folders never had the records that count now.

    The order numbers of two folders cannot say which of the folders is ahead.
    """
    if names:
        which = few(sorted(set(names)), _MOST, between="; ")
        notes.append(
            f"The merged folders disagree on {which}. The later-written record counts; "
            "`bench merge ... --prefer FOLDER` lets you choose."
        )


def _seedless(row: Row) -> str:
    """Return the coordinates that the seeds of one table row share on one dataset, as one text."""
    return "\n".join(str(row[c]) for c in _LINE)


def _setup_text(line: str) -> str:
    """Describe a text of ``_seedless`` for people."""
    where = dict(zip(_LINE, line.split("\n"), strict=True))
    shots = shots_text(int(where["shots"])) if where["shots"].isdigit() else f"{where['shots']} shots"
    return f"how {where['method']} was run on {where['dataset']} ({shots}, {where['backbone']})"


def _drop(rows: list[Row], reason: Callable[[Row], str], notes: list[str]) -> list[Row]:
    """Return the rows without a reason to leave them out, and note each reason with its count."""
    counts: Counter[str] = Counter()
    kept = []
    for row in rows:
        why = reason(row)
        if why:
            counts[why] += 1
            row[LEFT_OUT] = why
        else:
            kept.append(row)
    notes += [f"Left out: {n} record{'s' if n > 1 else ''} {why}." for why, n in counts.items()]
    return kept
