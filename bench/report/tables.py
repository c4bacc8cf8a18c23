"""Tables as data: which number stands where, what is best, what is missing; rendering is in ``render``.

Layout of Table I: one row per method and shots, one column per dataset, the average last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from bench.errors import BenchError
from bench.names import canonical, nearest

ORACLE = "test-oracle"
MISSING, FAILED = "-", "ERR"
AVERAGE = "average"


@dataclass(frozen=True)
class Entry:
    """One place of a table: a value in percent, or None with the text that stands for it."""

    value: float | None = None
    text: str = MISSING
    best: bool = False
    partial: bool = False


@dataclass(frozen=True)
class Row:
    """A method at one number of shots. ``label`` names prompts, protocol and settings where rows differ in them."""

    label: str
    method: str
    shots: int
    oracle: bool
    entries: dict[str, Entry]


@dataclass
class Table:
    """A titled table: ``columns`` of datasets (and the average), rows in order, notes below."""

    title: str
    columns: list[str]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


_GROUP = ["method", "shots", "prompts", "protocol", "preset", "variant"]


def table_1(
    frame: pd.DataFrame, methods: Sequence[str] = (), datasets: Sequence[str] = (), shots: Sequence[int] = (),
    backbone: str | None = None, partial: bool = False, bold: bool = True,
) -> Table:  # fmt: skip
    """Dataset x shots x method: mean over seeds of test accuracy in percent (Table I's layout).

    Best per dataset and shots is marked, never in test-oracle rows. A failed seed makes its entry ``ERR``, an absent one a
    dash; an average over incomplete entries is withheld unless ``partial``, then marked. Raises BenchError for unknown
    names and for a table of several backbones.
    """
    own = frame[frame["target"] == frame["dataset"]]
    own = _only(own, "method", methods)
    own = _only(own, "dataset", datasets)
    own = _one_backbone(own, backbone)
    if shots:
        own = own[own["shots"].isin([0, *shots])]
    columns = _order(list(own["dataset"].unique()), datasets)
    rows, missing = [], []
    for key, group in own.groupby(_GROUP, sort=False):
        entries = {d: _entry(group, d) for d in columns}
        lacking = [d for d, e in entries.items() if e.value is None]
        entries[AVERAGE] = _average([entries[d] for d in columns], partial)
        label = _label(dict(zip(_GROUP, key, strict=True)), own)
        if lacking:
            missing.append(f"{label}, {_shots(int(key[1]))}: {', '.join(lacking)}")
        rows.append(Row(label, str(key[0]), int(key[1]), key[3] == ORACLE, entries))
    rows.sort(key=lambda r: r.shots)
    if bold:
        rows = _mark_best(rows, [*columns, AVERAGE])
    counts = own[own["shots"] > 0].groupby(["method", "shots"])["seed"].nunique()
    seeds = f"{counts.min()} to {counts.max()}" if len(counts) and counts.min() != counts.max() else f"{counts.max()}"
    notes = [f"test accuracy in %, mean over {seeds if len(counts) else 'no'} seeds; backbone {_single(own, 'backbone')}"]
    if missing:
        notes.append("no average where entries are missing: " + "; ".join(missing))
        if partial:
            notes.append("* average over the entries that are there")
    if any(r.oracle for r in rows):
        notes.append("rows marked 'test-oracle' chose hyper-parameters on the test images; they are never best")
    return Table("Few-shot accuracy", [*columns, AVERAGE], rows, notes)


def _only(frame: pd.DataFrame, column: str, names: Sequence[str]) -> pd.DataFrame:
    if not names:
        return frame
    known = {canonical(n): n for n in frame[column].unique()}
    for name in names:
        if canonical(name) not in known:
            raise BenchError(f"no records of {column} '{name}'{nearest(name, known.values())}; run it first")
    return frame[frame[column].isin([known[canonical(n)] for n in names])]


def _one_backbone(frame: pd.DataFrame, backbone: str | None) -> pd.DataFrame:
    names = list(frame["backbone"].unique())
    if backbone is not None:
        return _only(frame, "backbone", [backbone])
    if len(names) > 1:
        raise BenchError(f"records of several backbones ({', '.join(sorted(names))}): choose one with --backbone")
    return frame


def _order(found: list[str], wanted: Sequence[str]) -> list[str]:
    rank = {canonical(d): i for i, d in enumerate(wanted)}
    return sorted(found, key=lambda d: (rank.get(canonical(d), len(rank)), d))


def _entry(group: pd.DataFrame, dataset: str) -> Entry:
    """Mean over seeds; every seed that the row has anywhere must be there."""
    rows = group[group["dataset"] == dataset]
    good = rows[rows["status"] == "ok"]
    lost = set(rows[rows["status"] == "failed"]["seed"]) - set(good["seed"])
    if lost:
        return Entry(text=FAILED)
    if set(good["seed"]) != set(group["seed"]):
        return Entry()
    value = float(good["accuracy"].mean())
    return Entry(value, f"{value:.2f}")


def _average(entries: list[Entry], partial: bool) -> Entry:
    values = [e.value for e in entries if e.value is not None]
    whole = len(values) == len(entries)
    if not values or not (whole or partial):
        return Entry()
    value = sum(values) / len(values)
    return Entry(value, f"{value:.2f}" if whole else f"{value:.2f}*", partial=not whole)


def _label(key: dict[str, object], frame: pd.DataFrame) -> str:
    """The method, with whatever tells its rows apart."""
    own = frame[(frame["method"] == key["method"])]
    extra = [str(key[c]) for c in ("prompts", "preset") if own[c].nunique() > 1]
    if key["protocol"] != "recipe":
        extra.append(str(key["protocol"]))
    if key["variant"]:
        extra.append(str(key["variant"]))
    return f"{key['method']} ({', '.join(extra)})" if extra else str(key["method"])


def _mark_best(rows: list[Row], columns: list[str]) -> list[Row]:
    marked = []
    for row in rows:
        entries = dict(row.entries)
        for column in columns:
            # Zero-shot rows have no shots of their own: they compete in every block, and are marked in none but theirs.
            rivals = [r.entries[column] for r in rows if r.shots == row.shots and not r.oracle]
            values = [round(e.value, 2) for e in rivals if e.value is not None and not e.partial]
            mine = entries[column]
            if values and mine.value is not None and not row.oracle and not mine.partial and round(mine.value, 2) == max(values):
                entries[column] = Entry(mine.value, mine.text, best=len(rivals) > 1)
        marked.append(Row(row.label, row.method, row.shots, row.oracle, entries))
    return marked


def _shots(n: int) -> str:
    return f"{n} shot{'s' if n > 1 else ''}" if n else "zero-shot"


def _single(frame: pd.DataFrame, column: str) -> str:
    return ", ".join(sorted(map(str, frame[column].unique())))
