"""Table I (dataset x shots x method) and Table III (a source and its shifted test sets, by backbone)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.names import TEST_ORACLE
from bench.report import marks
from bench.report.coordinates import ROW
from bench.report.naming import Namer
from bench.report.select import Choice, for_tables, in_order, one_backbone
from bench.report.table import AVERAGE, FAILED, Row, Score, Table
from bench.report.wording import listed, shots_list, shots_text

TARGETS_AVERAGE = "average of shifts"


def table_1(
    frame: pd.DataFrame,
    choice: Choice,
    targets: Sequence[str] = (),
    partial: bool = False,
    bold: bool = True,
    underline: bool = True,
) -> Table:
    """Test accuracy, mean over seeds: one row per method and shots, one column per dataset, the average last.

    A failed seed makes its entry ``ERR``, an absent one a dash; an average over incomplete entries is
    withheld unless ``partial``, then marked.
    """
    own, notes = for_tables(frame[frame["target"] == frame["dataset"]], choice)
    own = one_backbone(own)
    _some(own, "its own test images")
    columns = in_order(list(own["dataset"].unique()), choice.datasets)
    averages = {AVERAGE: tuple(columns)}
    rows = [*lines(own, columns, averages, partial, choice.methods)]
    table = Table("Few-shot accuracy", [*columns, AVERAGE], rows, averages=averages)
    table.notes = [f"test accuracy in %, {seeds_text(own)}; backbone {own['backbone'].iloc[0]}"]
    table.notes += [*missing_notes(table, partial), *notes, *frame.attrs.get("notes", ())]
    return marks.mark(table, bold, underline)


def table_3(
    frame: pd.DataFrame,
    choice: Choice,
    targets: Sequence[str] = (),
    partial: bool = False,
    bold: bool = True,
    underline: bool = True,
) -> Table:
    """Accuracy of models fitted on a source, on its test set and on shifted ones, by backbone and shots."""
    chosen, notes = for_tables(frame, choice)
    sources = sorted(chosen[chosen["target"] != chosen["dataset"]]["dataset"].unique())
    if len(sources) != 1:
        several = f"shifted test sets of several sources ({', '.join(sources)}): choose one with --datasets"
        raise BenchError(
            several if sources else "no records of shifted test sets: bench run --targets makes them"
        )
    source = sources[0]
    chosen = chosen[chosen["dataset"] == source]
    shifts = in_order([t for t in chosen["target"].unique() if t != source], targets)
    averages = {TARGETS_AVERAGE: tuple(shifts)}
    rows = [*lines(chosen, [source, *shifts], averages, partial, choice.methods, backbones=True)]
    table = Table(
        f"Shifted test sets of {source}",
        [source, *shifts, TARGETS_AVERAGE],
        rows,
        heads=("method", "shots", "backbone"),
        averages=averages,
    )
    table.notes = [f"test accuracy in %, {seeds_text(chosen)}, of models that saw {source} only"]
    table.notes += [*missing_notes(table, partial), *notes, *frame.attrs.get("notes", ())]
    return marks.mark(table, bold, underline)


def lines(
    frame: pd.DataFrame,
    columns: Sequence[str],
    averages: dict[str, tuple[str, ...]],
    partial: bool,
    methods: Sequence[str] = (),
    backbones: bool = False,
) -> list[Row]:
    """One row per identity, blocks in order: an entry per test set in ``columns`` and per average."""
    namer = Namer(frame)
    rank = {m: i for i, m in enumerate(in_order(list(frame["method"].unique()), methods))}
    rows = []
    for values, group in frame.groupby(list(ROW), sort=True):
        key: dict[str, Any] = dict(zip(ROW, values, strict=True))
        seeds = tuple(sorted(int(s) for s in group["seed"].unique()))
        by_target = {t: g for t, g in group.groupby("target")}
        # These are failed fits, which have no evaluation at all.
        broken = group[(group["status"] == "failed") & (group["key"] == group["fit"])]
        entries = {
            c: mean_over_seeds(
                by_target.get(c, group.iloc[:0]), seeds, broken if backbones else broken.iloc[:0]
            )
            for c in columns
        }
        entries |= {name: average([entries[c] for c in parts], partial) for name, parts in averages.items()}
        label, name = namer(key)
        shots = int(key["shots"])
        tail = (str(shots), str(key["backbone"])) if backbones else (str(shots),)
        rows.append(
            Row(
                (label, *tail),
                entries,
                (name, *tail),
                str(key["method"]),
                shots,
                key["protocol"] == TEST_ORACLE,
                block=(key["backbone"], shots),
                seeds=seeds,
                key=key,
            )
        )
    rows.sort(key=lambda r: (*map(str, r.block[:1]), r.shots, rank[r.method], r.heads))
    return rows


def mean_over_seeds(rows: pd.DataFrame, seeds: Sequence[int], broken: pd.DataFrame) -> Score:
    """Mean over seeds of one test set's ``rows``; every seed that the table row has anywhere must be there.

    A failed seed, of these rows or of the fits in ``broken``, is an error and not a gap.
    """
    good = rows[rows["status"] == "ok"].sort_values("seed")
    failed = pd.concat([rows[rows["status"] == "failed"], broken])
    failed = failed[~failed["seed"].isin(good["seed"])]
    if len(failed):
        return Score(text=FAILED, note="; ".join(sorted(set(failed["error"]))))
    if set(good["seed"]) != set(seeds):
        return Score()
    value = float(good["accuracy"].mean())
    return Score(value, f"{value:.2f}", paths=tuple(good["path"]))


def average(entries: Sequence[Score], partial: bool) -> Score:
    """The unweighted mean of complete entries; of the ones that are there, marked, only if ``partial``."""
    values = [e.value for e in entries if e.value is not None]
    whole = len(values) == len(entries)
    if not values or not (whole or partial):
        return Score()
    value = sum(values) / len(values)
    return Score(value, f"{value:.2f}" if whole else f"{value:.2f}*", partial=not whole)


def missing_notes(table: Table, partial: bool) -> list[str]:
    """What is missing or failed, and what marks and warnings in the rows mean."""
    notes = _gaps(table)
    if notes:
        hint = "no average of incomplete rows; --partial shows it over what is there, marked"
        notes.append("* average over the entries that are there" if partial else hint)
    errors = {e.note: row for row in table.rows for e in row.entries.values() if e.text == FAILED and e.note}
    notes += [
        f"ERR of {row.names[0]} at {shots_text(row.shots)}: {text}" for text, row in list(errors.items())[:5]
    ]
    if any(r.oracle for r in table.rows):
        notes.append(
            f"rows marked '{TEST_ORACLE}' chose hyper-parameters on the test images; they are never best"
        )
    if any("uses labels" in r.label for r in table.rows):
        notes.append("prompts marked 'uses labels' were chosen or trained with labelled images")
    return notes


def _gaps(table: Table) -> list[str]:
    """Which entries rows lack for their average, rows that lack the same ones together."""
    lists: dict[tuple[int, tuple[str, ...]], list[str]] = {}
    at: dict[int, list[str]] = {}
    for row in table.rows:
        name = row.names[0] + (f", {row.heads[2]}" if len(row.heads) > 2 else "")
        at.setdefault(row.shots, []).append(name)
        parts = dict.fromkeys(c for columns in table.averages.values() for c in columns)
        lacking = tuple(c for c in parts if row.entries[c].value is None)
        if lacking:
            lists.setdefault((row.shots, lacking), []).append(name)
    alike: dict[tuple[tuple[str, ...], tuple[str, ...]], list[int]] = {}
    for (shots, lacking), names in lists.items():
        alike.setdefault((tuple(names), lacking), []).append(shots)
    notes = []
    for (some, lacking), numbers in alike.items():
        everything = len(some) > 1 and all(at[n] == list(some) for n in numbers)
        who = "all rows" if everything else listed(some, noun="rows")
        verb = "lacks" if len(some) == 1 else "lack"
        notes.append(f"incomplete at {shots_list(numbers)}: {who} {verb} {listed(lacking, len(lacking))}")
    return notes


def seeds_text(frame: pd.DataFrame) -> str:
    """``mean over 3 seeds``, or by shots where they differ, of the rows that use labels."""
    few = frame[frame["shots"] > 0]
    if not len(few):
        return "nothing is drawn, so there are no seeds"
    counts: Any = (
        few.groupby(["shots", "method", "backbone"])["seed"].nunique().groupby("shots").agg(["min", "max"])
    )
    numbers: dict[tuple[int, int], list[int]] = {}
    for n, low, high in counts.itertuples():
        numbers.setdefault((int(low), int(high)), []).append(int(n))
    words = {pair: f"{pair[0]} to {pair[1]}" if pair[0] < pair[1] else str(pair[0]) for pair in numbers}
    each = [f"{words[pair]} seed{'s' if pair[1] > 1 else ''}" for pair in numbers]
    if len(each) == 1:
        return f"mean over {each[0]}"
    return "mean over " + ", ".join(
        f"{text} at {shots_list(some)}" for text, some in zip(each, numbers.values(), strict=True)
    )


def _some(frame: pd.DataFrame, what: str) -> None:
    if not len(frame):
        raise BenchError(f"no records on {what} fit the options")
