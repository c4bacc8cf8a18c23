"""Table I (dataset x shots x method) and Table III (a source and its shifted test sets, by backbone)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.names import TEST_ORACLE
from bench.report import marks
from bench.report.coordinates import ROW
from bench.report.means import average, by_row, by_target, mean_over_seeds
from bench.report.naming import Namer
from bench.report.select import Choice, for_tables, in_order, one_backbone
from bench.report.table import AVERAGE, FAILED, Row, Table
from bench.report.wording import cells_text, listed, seeds_list, shots_list

TARGETS_AVERAGE = "average of shifts"
_MOST = 5  # causes of errors that are spelt out
# What a reader of numbers with these budgets has to know.
PRESETS = {
    "quick": "preset quick: short budgets for the embedded backbones, not the published recipes, so that a "
    'method may end below zero-shot; README.md, "Presets", says why'
}


def table_1(
    frame: pd.DataFrame,
    choice: Choice,
    targets: Sequence[str] = (),
    partial: bool = False,
    bold: bool = True,
    underline: bool = True,
) -> Table:
    """Test accuracy, mean over seeds: one row per method and shots, one column per dataset, the average last.

    A failed seed makes its entry ``ERR``. An entry that lacks seeds which its row, or another row of its
    shots, has says of how many it is the mean. An average over entries of unequal seeds is withheld unless
    ``partial``, then marked; one dataset has none.
    """
    own, notes = for_tables(frame[frame["target"] == frame["dataset"]], choice)
    own = one_backbone(own)
    _some(own, "its own test images")
    columns = in_order(list(own["dataset"].unique()), choice.datasets)
    averages = averages_of(AVERAGE, columns)
    rows = [*lines(own, columns, averages, partial, choice.methods)]
    table = Table("Few-shot accuracy", [*columns, *averages], rows, averages=averages)
    table.notes = [f"test accuracy in %, {seeds_text(own)}; backbone {own['backbone'].iloc[0]}"]
    table.notes += [*preset_notes(own), *missing_notes(table, columns, partial), *notes]
    table.notes += frame.attrs.get("notes", ())
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
    averages = averages_of(TARGETS_AVERAGE, shifts)
    rows = [*lines(chosen, [source, *shifts], averages, partial, choice.methods, backbones=True)]
    table = Table(
        f"Shifted test sets of {source}",
        [source, *shifts, *averages],
        rows,
        heads=("method", "shots", "backbone"),
        averages=averages,
    )
    table.notes = [f"test accuracy in %, {seeds_text(chosen)}, of models that saw {source} only"]
    table.notes += [*preset_notes(chosen), *missing_notes(table, [source, *shifts], partial), *notes]
    table.notes += frame.attrs.get("notes", ())
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
    everywhere = frame.groupby(["backbone", "shots"])["seed"].unique().to_dict()
    for values, outcomes in by_row(frame):
        key: dict[str, Any] = dict(zip(ROW, values, strict=True))
        seeds = tuple(sorted({o.seed for o in outcomes}))
        absent = tuple(sorted(set(everywhere[key["backbone"], key["shots"]].tolist()) - set(seeds)))
        here = by_target(outcomes)
        lost = [o for o in outcomes if o.lost] if backbones else []
        entries = {c: mean_over_seeds(here.get(c, ()), seeds, lost, absent) for c in columns}
        entries |= {
            name: average([entries[c] for c in parts], partial, seeds, absent)
            for name, parts in averages.items()
        }
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
                absent=absent,
                key=key,
            )
        )
    rows.sort(key=lambda r: (*map(str, r.block[:1]), r.shots, rank[r.method], r.heads))
    return rows


def averages_of(name: str, columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The column that averages ``columns``; none of a single one, which it would repeat."""
    return {name: tuple(columns)} if len(columns) > 1 else {}


def preset_notes(frame: pd.DataFrame) -> list[str]:
    """What is to be known about the budgets behind the rows that use labels."""
    few = frame[frame["shots"] > 0]
    return [PRESETS[name] for name in sorted(few["preset"].unique()) if name in PRESETS]


def missing_notes(table: Table, columns: Sequence[str], partial: bool) -> list[str]:
    """What of the test sets ``columns`` is missing or failed, and what marks and warnings in rows mean."""
    notes = _gaps(table, columns) + _thin(table, columns)
    if notes and table.averages:
        hint = "no average of incomplete rows; --partial shows it over what is there, marked"
        notes.append("* average over the entries that are there" if partial else hint)
    notes += _fewer(table)
    errors: dict[str, list[tuple[str, int]]] = {}
    for row in table.rows:
        for text in dict.fromkeys(e.note for e in row.entries.values() if e.text == FAILED and e.note):
            errors.setdefault(text, []).append((row.names[0], row.shots))
    notes += [f"ERR of {_who(cells)}: {text}" for text, cells in list(errors.items())[:_MOST]]
    if len(errors) > _MOST:
        notes.append(f"ERR: {len(errors) - _MOST} more causes; the records say them")
    if any(r.oracle for r in table.rows):
        notes.append(
            f"rows marked '{TEST_ORACLE}' chose hyper-parameters on the test images; they are never best"
        )
    if any("uses labels" in r.label for r in table.rows):
        notes.append("prompts marked 'uses labels' were chosen or trained with labelled images")
    return notes


def _who(cells: Sequence[tuple[str, int]]) -> str:
    names = list(dict.fromkeys(name for name, _ in cells))
    return f"{listed(names, noun='rows')} at {shots_list(n for _, n in cells)}"


def _name(row: Row) -> str:
    return row.names[0] + (f", {row.heads[2]}" if len(row.heads) > 2 else "")


def _gaps(table: Table, columns: Sequence[str]) -> list[str]:
    """Which entries rows lack, rows that lack the same ones together."""
    lists: dict[tuple[int, tuple[str, ...]], list[str]] = {}
    for row in table.rows:
        lacking = tuple(c for c in columns if row.entries[c].value is None)
        if lacking:
            lists.setdefault((row.shots, lacking), []).append(_name(row))
    alike: dict[tuple[tuple[str, ...], tuple[str, ...]], list[int]] = {}
    for (shots, lacking), names in lists.items():
        alike.setdefault((tuple(names), lacking), []).append(shots)
    return [
        f"incomplete at {shots_list(numbers)}: {_rows(table, some, numbers)} "
        f"{'lacks' if len(some) == 1 else 'lack'} {listed(lacking, len(lacking))}"
        for (some, lacking), numbers in alike.items()
    ]


def _thin(table: Table, columns: Sequence[str]) -> list[str]:
    """Which entries are means over some of their row's seeds, those of the same seeds together."""
    lists: dict[tuple[int, str, str], list[str]] = {}
    for row in table.rows:
        for column in columns:
            entry = row.entries[column]
            if entry.value is not None and entry.partial:
                lists.setdefault((row.shots, column, _seeds(row, entry.seeds)), []).append(_name(row))
    alike: dict[tuple[tuple[str, ...], str], dict[str, dict[int, None]]] = {}
    for (shots, column, said), names in lists.items():
        alike.setdefault((tuple(names), said), {}).setdefault(column, {})[shots] = None
    notes = []
    for (some, said), where in alike.items():
        numbers = list(dict.fromkeys(n for shots in where.values() for n in shots))
        places = cells_text((column, n) for column, shots in where.items() for n in shots)
        has = "has" if len(some) == 1 else "have"
        notes.append(f"fewer seeds: {_rows(table, some, numbers)} {has} {said}, on {places}")
    return notes


def _fewer(table: Table) -> list[str]:
    """Which rows lack seeds that others of their shots have, on all test sets; those of the same together."""
    lists: dict[str, list[tuple[str, int]]] = {}
    for row in table.rows:
        if row.absent and any(e.value is not None for e in row.entries.values()):
            lists.setdefault(_seeds(row, row.seeds), []).append((_name(row), row.shots))
    return [f"fewer seeds than other rows: {cells_text(cells)} ({said})" for said, cells in lists.items()]


def _seeds(row: Row, there: Sequence[int]) -> str:
    """``seed 1, not 2 and 3``: which of all seeds of a row's shots are there."""
    away = [str(s) for s in sorted((*row.seeds, *row.absent)) if s not in there]
    return f"{seeds_list(there)}, not {listed(away, len(away))}"


def _rows(table: Table, names: Sequence[str], numbers: Sequence[int]) -> str:
    """The named rows of these numbers of shots; ``all rows`` where there are no others."""
    at = {n: [_name(row) for row in table.rows if row.shots == n] for n in numbers}
    everything = len(names) > 1 and all(at[n] == list(names) for n in numbers)
    return "all rows" if everything else listed(names, noun="rows")


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
