"""Published numbers (results/paper), and ours beside them with a verdict.

Verdicts: ``reproduced`` within the tolerance, ``differs`` outside it, ``not run`` without a complete result
of ours, and ``not comparable`` for results of ours without a published number for the same backbone, dataset
and budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.names import canonical, nearest
from bench.paths import results_dir
from bench.report.choose import Choice, Namer, in_order, pick, shots_text
from bench.report.tables import AVERAGE, FAILED, MISSING, Entry, Row, Table
from bench.report.tables_accuracy import entry

SOURCES = {"paper": "safe-paper"}
ZERO_SHOT, AVERAGES, SHIFTS, FEW, MANY = 0.4, 0.5, 0.8, 1.5, 1.0  # points; FEW up to 2 shots (protocol 20)
FULL = "paper"  # the preset with the published budgets
COLUMNS = ["ours", "published", "difference", "tolerance", "verdict"]


def published(source: str = "paper") -> pd.DataFrame:
    """All published numbers of a source ('paper', or a name in the CSV files' column ``source``).

    ``value`` is a float, ``printed`` as printed. Raises BenchError for an unknown source.
    """
    folder = results_dir() / "paper"
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise BenchError(f"no published numbers: {folder} holds no CSV files")
    text = pd.concat(
        [pd.read_csv(file, dtype=str, keep_default_na=False) for file in files], ignore_index=True
    )
    name = SOURCES.get(canonical(source), canonical(source))
    known = sorted(text["source"].unique())
    if name not in known:
        hint = nearest(source, [*SOURCES, *known])
        raise BenchError(f"--against {source}: unknown source{hint}; there are paper, {', '.join(known)}")
    text = text[text["source"] == name]
    numbers = {column: pd.to_numeric(text[column], errors="coerce") for column in ("value", "shots")}
    return text.assign(printed=text["value"], **numbers).reset_index(drop=True)


def sizes(source: str = "paper") -> dict[str, dict[str, tuple[int | None, str]]]:
    """Table II: dataset -> classes, train, val, test -> (number, or None where it prints N/A; remark)."""
    found: dict[str, dict[str, tuple[int | None, str]]] = {}
    for row in published(source).query("table == '2'").itertuples():
        value: Any = row.value
        found.setdefault(str(row.dataset), {})[str(row.method)] = (
            None if math.isnan(value) else int(value),
            str(row.note),
        )
    return found


def tolerance(shots: int, dataset: str, shifted: bool) -> float:
    """Points by which a repetition may miss a published number: nothing is drawn in zero-shot, so it has the
    least.
    """
    if shots == 0:
        return ZERO_SHOT
    if dataset == AVERAGE:
        return AVERAGES
    return SHIFTS if shifted else FEW if shots <= 2 else MANY


def against(frame: pd.DataFrame, which: str, choice: Choice, source: str = "paper") -> Table:
    """Ours beside the published numbers of table '1' or '3', one row per number, then what cannot be
    compared.
    """
    numbers = published(source).dropna(subset=["value", "shots"])
    numbers = numbers[numbers["table"].isin([which, ""])]
    if not len(numbers):
        raise BenchError(f"--against {source}: it has no numbers for table {which}")
    chosen, notes = pick(frame, choice)
    if which == "1":
        chosen = chosen[chosen["target"] == chosen["dataset"]]
    numbers = _narrowed(numbers, choice)
    results = _Results(chosen)
    eleven = sorted({str(d) for d in published("paper").query("table == '2'")["dataset"]})
    rows = []
    for number in _dicts(numbers):
        rows += _compared(number, results, eleven, shifted=which == "3")
    rows += _alone(results, numbers)
    title = f"Against published numbers ({source_name(source)}), table {which}"
    notes = [
        f"accuracy in %, differences and tolerances in points; {tally(rows)}",
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
    notes += [f"on {', '.join(where)}: {remark}" for remark, where in remarks.items()]
    heads = ("method", "shots", "dataset", "backbone")
    return Table(title, COLUMNS, rows, notes, heads=heads, left=("verdict",))


def source_name(source: str) -> str:
    """A source as the files name it."""
    return SOURCES.get(canonical(source), source)


def tally(rows: Sequence[Row]) -> str:
    """How many rows have each verdict."""
    found = [row.entries["verdict"].text.split(" (")[0] for row in rows]
    return ", ".join(f"{found.count(v)} {v}" for v in ("reproduced", "differs", "not run", "not comparable"))


def verdict(gap: float, allowed: float, preset: str) -> str:
    """The verdict on a result of ours that is ``gap`` points from the published number."""
    if preset != FULL:
        return f"not comparable (preset {preset})"
    return "reproduced" if abs(gap) <= allowed + 1e-9 else "differs"


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
    """Our rows by (method, shots, backbone), each with its groups of one prompt set, protocol, preset and
    variant.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.namer = Namer(frame)
        self.groups: dict[tuple[str, int, str], list[tuple[dict[str, Any], pd.DataFrame]]] = {}
        columns = ["method", "shots", "backbone", "prompts", "protocol", "preset", "variant"]
        for values, group in frame.groupby(columns, sort=True):
            key = dict(zip(columns, values, strict=True))
            self.groups.setdefault(_coordinates(key), []).append((key, group))


def _coordinates(key: Mapping[str, Any]) -> tuple[str, int, str]:
    return canonical(str(key["method"])), int(key["shots"]), canonical(str(key["backbone"]))


def _mean(group: pd.DataFrame, dataset: str, eleven: list[str]) -> tuple[Entry, str]:
    """Our mean over seeds on a dataset or the average over the eleven, and what is missing for it."""
    seeds = tuple(sorted(group["seed"].unique()))
    by_name = {canonical(str(t)): g for t, g in group.groupby("target")}
    none = group.iloc[:0]
    parts = {
        d: entry(by_name.get(canonical(d), none), seeds, none)
        for d in (eleven if dataset == AVERAGE else [dataset])
    }
    lacking = [d for d, e in parts.items() if e.value is None]
    if lacking:
        failed = any(e.text == FAILED for e in parts.values())
        whole = len(lacking) == len(parts)
        reason = "failed" if failed else "" if whole else f"missing: {', '.join(lacking)}"
        return Entry(text=FAILED if failed else MISSING), reason
    value = sum(e.value or 0.0 for e in parts.values()) / len(parts)
    return Entry(value, f"{value:.2f}"), ""


def _compared(number: Mapping[str, Any], results: _Results, eleven: list[str], shifted: bool) -> list[Row]:
    """The rows of one published number: one for each result of ours that it fits, or one that says there is
    none.
    """
    dataset, shots = str(number["dataset"]), int(number["shots"])
    allowed = tolerance(shots, dataset, shifted and dataset not in eleven)
    quoted = Entry(number["value"], str(number["printed"]), note=str(number["note"]))
    rows, reasons = [], []
    for key, group in results.groups.get(_coordinates(number), []):
        ours, lacking = _mean(group, dataset, eleven)
        label, name = results.namer(key)
        if ours.value is None:
            reasons += [lacking] if lacking else []
            continue
        gap = ours.value - number["value"]
        said = verdict(gap, allowed, str(key["preset"]))
        rows.append(_row(label, name, number, ours, quoted, Entry(gap, f"{gap:+.2f}"), allowed, said))
    if rows:
        return rows
    method = str(number["method"])
    title = results.namer.titles.get(method, method)
    failed = "failed" in reasons
    said = f"not run ({reasons[0]})" if reasons else "not run"
    ours = Entry(text=FAILED if failed else MISSING)
    return [_row(title, method, number, ours, quoted, Entry(), allowed, said)]


def _row(
    label: str,
    name: str,
    number: Mapping[str, Any],
    ours: Entry,
    quoted: Entry,
    gap: Entry,
    allowed: float,
    said: str,
) -> Row:
    tail = (str(int(number["shots"])), str(number["dataset"]), str(number["backbone"]))
    entries = {
        "ours": ours,
        "published": quoted,
        "difference": gap,
        "tolerance": Entry(allowed, f"{allowed:.1f}"),
        "verdict": Entry(text=said),
    }
    return Row(
        (label, *tail),
        entries,
        (name, *tail),
        str(number["method"]),
        int(number["shots"]),
        block=(number["method"],),
    )


def _alone(results: _Results, numbers: pd.DataFrame) -> list[Row]:
    """Our results without a published number, put together by method and backbone."""
    quoted: dict[tuple[str, int, str], set[str]] = {}
    for n in _dicts(numbers):
        quoted.setdefault(_coordinates(n), set()).add(canonical(n["dataset"]))
    backbones = {canonical(b) for b in numbers["backbone"] if b}
    known = {canonical(d) for d in numbers["dataset"]}
    found: dict[tuple[str, str, str, str], tuple[set[int], set[str]]] = {}
    for where, groups in results.groups.items():
        for key, group in groups:
            for name in sorted({str(t) for t in group["target"].unique()} - {AVERAGE}):
                if canonical(name) in quoted.get(where, set()):
                    continue
                reason = "no published number" if canonical(name) in known else "other dataset"
                reason = reason if where[2] in backbones else "other backbone"
                shots, names = found.setdefault(
                    (*results.namer(key), str(key["backbone"]), reason), (set(), set())
                )
                shots.add(where[1])
                names.add(name)
    rows = []
    for (label, name, backbone, reason), (shots, names) in found.items():
        many = ", ".join(map(str, sorted(shots)))
        where_text = ", ".join(in_order(list(names), [])) if len(names) <= 3 else f"{len(names)} datasets"
        entries = {c: Entry() for c in COLUMNS} | {"verdict": Entry(text=f"not comparable ({reason})")}
        tail = (many, where_text, backbone)
        rows.append(
            Row((label, *tail), entries, (name, *tail), name.split(" (")[0], max(shots), block=("alone",))
        )
    return rows
