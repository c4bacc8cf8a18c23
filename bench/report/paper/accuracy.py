"""Put our results beside the published numbers of tables I and III."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.names import canonical
from bench.report.coordinates import ROW
from bench.report.means import by_target, mean_over_seeds, outcomes_of
from bench.report.naming import Namer
from bench.report.paper.numbers import published, source_name
from bench.report.paper.verdicts import COLUMNS, entries, tally, tolerance, unquoted, verdict
from bench.report.select import Choice, for_tables, in_order
from bench.report.table import AVERAGE, FAILED, MISSING, Row, Score, Table
from bench.report.wording import shots_text

# Our results are listed by method, then by shots.
_ORDER = ["method", "shots", *(c for c in ROW if c not in ("method", "shots"))]


def against(frame: pd.DataFrame, which: str, choice: Choice, source: str = "paper") -> Table:
    """Return our results beside the published numbers of table '1' or '3', then what cannot be compared.

    Each published number has one row per result of ours that it fits.
    """
    numbers = published(source).dropna(subset=["value", "shots"])
    numbers = numbers[numbers["table"].isin([which, ""])]
    if not len(numbers):
        raise BenchError(
            f"--against {source}: it has no numbers for table {which}; name another source or table"
        )
    chosen, notes = for_tables(frame, choice)
    if which == "1":
        chosen = chosen[chosen["target"] == chosen["dataset"]]
    numbers = _narrowed(numbers, choice)
    results = _Results(chosen)
    eleven = sorted({str(d) for d in published("paper").query("table == '2'")["dataset"]})
    rows = []
    for number in _dicts(numbers):
        rows += _compared(number, results, eleven, shifted=which == "3")
    rows += _unpublished(results, numbers)
    title = f"Against published numbers ({source_name(source)}), table {which}"
    notes = [
        f"Accuracies are in %, differences and tolerances in points. {tally(rows)}",
        *notes,
        *frame.attrs.get("notes", ()),
    ]
    remarks: dict[str, list[str]] = {}
    for row in rows:
        quoted = row.entries["published"]
        if quoted.note and row.entries["difference"].value is not None:
            remarks.setdefault(quoted.note, []).append(
                f"{row.names[0]} {row.names[2]} at {shots_text(row.shots)}"
            )
    notes += [f"On {', '.join(where)}: {remark}" for remark, where in remarks.items()]
    heads = ("method", "shots", "dataset", "backbone")
    return Table(title, COLUMNS, rows, notes, heads=heads, left=("verdict",))


def _narrowed(numbers: pd.DataFrame, choice: Choice) -> pd.DataFrame:
    for column, names in (
        ("method", choice.methods),
        ("dataset", choice.datasets),
        ("backbone", (choice.backbone,)),
    ):
        wanted = {canonical(n) for n in names if n}
        if wanted:
            numbers = numbers[
                numbers[column].map(canonical).isin(wanted | {AVERAGE} if column == "dataset" else wanted)
            ]
    return numbers[numbers["shots"].isin([0, *choice.shots])] if choice.shots else numbers


def _dicts(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]


class _Results:
    """Our rows by (method, shots, backbone), in groups of one prompt set, protocol, preset and variant."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.namer = Namer(frame)
        self.groups: dict[tuple[str, int, str], list[tuple[dict[str, Any], pd.DataFrame]]] = {}
        for values, group in frame.groupby(_ORDER, sort=True):
            key = dict(zip(_ORDER, values, strict=True))
            self.groups.setdefault(_coordinates(key), []).append((key, group))


def _coordinates(key: Mapping[str, Any]) -> tuple[str, int, str]:
    return canonical(str(key["method"])), int(key["shots"]), canonical(str(key["backbone"]))


def _mean(group: pd.DataFrame, dataset: str, eleven: list[str]) -> tuple[Score, str]:
    """Return our mean over seeds on a dataset, or the average over the eleven, and what is missing for it."""
    outcomes = outcomes_of(group)
    seeds = tuple(sorted({o.seed for o in outcomes}))
    by_name = {canonical(name): some for name, some in by_target(outcomes).items()}
    parts = {
        d: mean_over_seeds(by_name.get(canonical(d), ()), seeds)
        for d in (eleven if dataset == AVERAGE else [dataset])
    }
    lacking = [d for d, e in parts.items() if e.value is None or e.partial]
    if lacking:
        failed = any(e.text == FAILED for e in parts.values())
        whole = len(lacking) == len(parts)
        reason = "failed" if failed else "" if whole else f"missing: {', '.join(lacking)}"
        return Score(text=FAILED if failed else MISSING), reason
    value = sum(e.value or 0.0 for e in parts.values()) / len(parts)
    return Score(value, f"{value:.2f}"), ""


def _compared(number: Mapping[str, Any], results: _Results, eleven: list[str], shifted: bool) -> list[Row]:
    """Return one row per result of ours that a published number fits, or one row that says there is none."""
    dataset, shots = str(number["dataset"]), int(number["shots"])
    allowed = tolerance(shots, dataset, shifted and dataset not in eleven)
    quoted = Score(number["value"], str(number["printed"]), note=str(number["note"]))
    rows, reasons = [], []
    for key, group in results.groups.get(_coordinates(number), []):
        ours, lacking = _mean(group, dataset, eleven)
        label, name = results.namer(key)
        if ours.value is None:
            reasons += [lacking] if lacking else []
            continue
        gap = ours.value - number["value"]
        said = verdict(gap, allowed, str(key["preset"]))
        rows.append(_row(label, name, number, ours, quoted, Score(gap, f"{gap:+.2f}"), allowed, said))
    if rows:
        return rows
    method = str(number["method"])
    title = results.namer.titles.get(method, method)
    failed = "failed" in reasons
    said = f"not run ({reasons[0]})" if reasons else "not run"
    ours = Score(text=FAILED if failed else MISSING)
    return [_row(title, method, number, ours, quoted, Score(), allowed, said)]


def _row(
    label: str,
    name: str,
    number: Mapping[str, Any],
    ours: Score,
    quoted: Score,
    gap: Score,
    allowed: float,
    said: str,
) -> Row:
    tail = (str(int(number["shots"])), str(number["dataset"]), str(number["backbone"]))
    return Row(
        (label, *tail),
        entries(ours, quoted, gap, allowed, said),
        (name, *tail),
        str(number["method"]),
        int(number["shots"]),
        block=(number["method"],),
    )


def _unpublished(results: _Results, numbers: pd.DataFrame) -> list[Row]:
    """Return our results that have no published number, grouped by method and backbone."""
    quoted: dict[tuple[str, int, str], set[str]] = {}
    for n in _dicts(numbers):
        quoted.setdefault(_coordinates(n), set()).add(canonical(n["dataset"]))
    backbones = {canonical(b) for b in numbers["backbone"] if b}
    known = {canonical(d) for d in numbers["dataset"]}
    groups: dict[tuple[str, str, str, str], tuple[set[int], set[str]]] = {}
    for where, own in results.groups.items():
        for key, group in own:
            for name in sorted({str(t) for t in group["target"].unique()} - {AVERAGE}):
                if canonical(name) in quoted.get(where, set()):
                    continue
                reason = "no published number" if canonical(name) in known else "other dataset"
                reason = reason if where[2] in backbones else "other backbone"
                shots, names = groups.setdefault(
                    (*results.namer(key), str(key["backbone"]), reason), (set(), set())
                )
                shots.add(where[1])
                names.add(name)
    rows = []
    for (label, name, backbone, reason), (shots, names) in groups.items():
        many = ", ".join(map(str, sorted(shots)))
        where_text = ", ".join(in_order(list(names), [])) if len(names) <= 3 else f"{len(names)} datasets"
        tail = (many, where_text, backbone)
        rows.append(
            Row(
                (label, *tail),
                unquoted(reason),
                (name, *tail),
                name.split(" (")[0],
                max(shots),
                block=("alone",),
            )
        )
    return rows
