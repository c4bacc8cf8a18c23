"""Make Table I (dataset x shots x method) and Table III (a source and its shifted test sets, by backbone)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.metrics import Metric
from bench.names import TEST_ORACLE
from bench.records import packed
from bench.report import marks, measures, told
from bench.report.coordinates import IMPORTED, ROW
from bench.report.means import average, by_row, by_target, mean_over_seeds
from bench.report.measures import ACCURACY
from bench.report.naming import Namer
from bench.report.select import Choice, for_tables, in_order, one_backbone, run_command
from bench.report.table import AVERAGE, FAILED, Row, Table
from bench.report.wording import cells_text, listed, seeds_list, shots_list

TARGETS_AVERAGE = "average of shifts"
_MOST = 5  # most causes of errors that notes name
# What a reader has to know about numbers made with these budgets.
PRESETS = {
    "quick": "The preset 'quick' trains briefly, with budgets for the embedded backbones instead of the "
    "published recipes. A method may therefore end below zero-shot; the page 'Protocols and presets' says "
    "why."
}


def table_1(
    frame: pd.DataFrame,
    choice: Choice,
    targets: Sequence[str] = (),
    partial: bool = False,
    bold: bool = True,
    underline: bool = True,
    metric: Metric = ACCURACY,
) -> Table:
    """Return test accuracy, or another metric, as means over seeds, with a row per method and shots.

    The columns are the datasets and, last, their average.

    A failed seed makes its entry ``ERR``. An entry may lack seeds that its row, or another row with as many
    shots, has; then it says of how many seeds it is the mean. Example: ``71.20 (2/3)``. An average over
    entries with unequal seeds is withheld unless ``partial`` is set, and then marked. A table of one dataset
    has no average.
    """
    own, notes = for_tables(frame[frame["target"] == frame["dataset"]], choice)
    own = one_backbone(own)
    if not len(own):
        raise BenchError(
            "no records match the options: choose others, leave some out, or make the records with "
            f"`{run_command(choice, '')}`"
        )
    columns = in_order(list(own["dataset"].unique()), choice.datasets)
    averages = averages_of(AVERAGE, columns)
    rows = [*lines(own, columns, averages, partial, choice.methods, metric=metric)]
    title = "Few-shot accuracy" if metric is ACCURACY else f"Few-shot {measures.heading(metric)}"
    table = Table(title, [*columns, *averages], rows, averages=averages, metric=measures.named(metric))
    told.require(table, columns, choice)
    said = measures.numbers_note(metric, seeds_text(own))
    table.notes = [f"{said} The backbone is {own['backbone'].iloc[0]}.", *measures.conventions(metric)]
    table.notes += [*preset_notes(own), *missing_notes(table, columns, partial), *notes]
    table.notes += untold_notes(table, columns, choice)
    table.notes += frame.attrs.get("notes", ())
    return marks.mark(table, bold, underline)


def table_3(
    frame: pd.DataFrame,
    choice: Choice,
    targets: Sequence[str] = (),
    partial: bool = False,
    bold: bool = True,
    underline: bool = True,
    metric: Metric = ACCURACY,
) -> Table:
    """Return the accuracy of models fitted on one source, on its own and on shifted test sets.

    The rows are grouped by backbone and shots. ``metric`` may be another one than accuracy.
    """
    chosen, notes = for_tables(frame, choice)
    sources = sorted(chosen[chosen["target"] != chosen["dataset"]]["dataset"].unique())
    if len(sources) != 1:
        several = f"shifted test sets of several sources ({', '.join(sources)}): choose one with --datasets"
        raise BenchError(
            several
            if sources
            else f"no records of shifted test sets: `{run_command(choice, '--targets')}` makes them"
        )
    source = sources[0]
    chosen = chosen[chosen["dataset"] == source]
    shifts = in_order([t for t in chosen["target"].unique() if t != source], targets)
    averages = averages_of(TARGETS_AVERAGE, shifts)
    rows = [*lines(chosen, [source, *shifts], averages, partial, choice.methods, True, metric)]
    table = Table(
        measures.titled(f"Shifted test sets of {source}", metric),
        [source, *shifts, *averages],
        rows,
        heads=("method", "shots", "backbone"),
        averages=averages,
        sources=dict.fromkeys([source, *shifts], source),
        metric=measures.named(metric),
    )
    told.require(table, [source, *shifts], choice, "--targets")
    said = measures.numbers_note(metric, seeds_text(chosen))
    table.notes = [f"{said} The models were fitted on {source} alone.", *measures.conventions(metric)]
    table.notes += [*preset_notes(chosen), *missing_notes(table, [source, *shifts], partial), *notes]
    table.notes += untold_notes(table, [source, *shifts], choice)
    table.notes += frame.attrs.get("notes", ())
    return marks.mark(table, bold, underline)


def lines(
    frame: pd.DataFrame,
    columns: Sequence[str],
    averages: dict[str, tuple[str, ...]],
    partial: bool,
    methods: Sequence[str] = (),
    backbones: bool = False,
    metric: Metric = ACCURACY,
) -> list[Row]:
    """Build one row per coordinates of ``ROW``, with an entry per test set and per average.

    Raises BenchError if the metric has to be computed from predictions and these are gone.
    """
    frame = measures.filled(frame, metric)
    namer = Namer(frame)
    rank = {m: i for i, m in enumerate(in_order(list(frame["method"].unique()), methods))}
    rows = []
    everywhere = frame.groupby(["backbone", "shots"])["seed"].unique().to_dict()
    for values, outcomes in by_row(frame, "value"):
        key: dict[str, Any] = dict(zip(ROW, values, strict=True))
        seeds = tuple(sorted({o.seed for o in outcomes}))
        absent = tuple(sorted(set(everywhere[key["backbone"], key["shots"]].tolist()) - set(seeds)))
        here = by_target(outcomes)
        lost = [o for o in outcomes if o.lost] if backbones else []
        entries = {c: mean_over_seeds(here.get(c, ()), seeds, lost, absent, metric.digits) for c in columns}
        entries |= {
            name: average([entries[c] for c in parts], partial, seeds, absent, metric.digits)
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
    """Return the column that averages ``columns``, or no column for a single one, which it would repeat."""
    return {name: tuple(columns)} if len(columns) > 1 else {}


def preset_notes(frame: pd.DataFrame) -> list[str]:
    """Return notes on the training budgets (presets) behind the rows that use labels and were fitted here."""
    few = frame[(frame["shots"] > 0) & (frame["prompts"] != IMPORTED)]
    return [PRESETS[name] for name in sorted(few["preset"].unique()) if name in PRESETS]


def missing_notes(table: Table, columns: Sequence[str], partial: bool) -> list[str]:
    """Return notes on results that ``columns`` lack or that failed, and on the marks and warnings in rows."""
    notes = _missing_entry_notes(table, columns) + _partial_notes(table, columns)
    failures = any(row.entries[c].text == FAILED for row in table.rows for c in columns)
    if (notes or failures) and table.averages:
        hint = "Rows with gaps have no average; --partial shows it over what is there, marked with *."
        notes.append("* marks an average over only those entries that are there." if partial else hint)
    notes += _absent_seed_notes(table)
    errors: dict[str, list[tuple[str, int]]] = {}
    records: dict[str, dict[str, None]] = {}
    for row in table.rows:
        failed = [e for e in row.entries.values() if e.text == FAILED and e.note]
        for text in dict.fromkeys(e.note for e in failed):
            errors.setdefault(text, []).append((row.names[0], row.shots))
        for entry in failed:
            records.setdefault(entry.note, {}).update(dict.fromkeys(entry.failed))
    for text, cells in list(errors.items())[:_MOST]:
        first, *more = records[text]
        which = f"the first of {len(more) + 1} records is" if more else "the record is"
        notes.append(f"ERR: {_named_cells(cells)} failed: {text} ({which} {_place(first)})")
    if len(errors) > _MOST:
        notes.append(f"ERR: there are {len(errors) - _MOST} more causes; the failed records name them.")
    if any(r.oracle for r in table.rows):
        notes.append(
            f"Rows marked '{TEST_ORACLE}' chose hyper-parameters on the test images. They are never bold."
        )
    if any("(imported" in r.label for r in table.rows):
        notes.append(
            "Rows marked 'imported' were fitted elsewhere. Their predictions came here by `bench import`, "
            "and how they were made is not known."
        )
    if any("uses labels" in r.label for r in table.rows):
        notes.append("Prompts marked 'uses labels' were chosen or trained with labelled images.")
    return notes


def untold_notes(table: Table, columns: Sequence[str], choice: Choice) -> list[str]:
    """Name the entries of which some records cannot tell the table's metric, and the run that mends it."""
    if table.metric is None:
        return []
    where = [
        f"{_rows(table, names, shots)}{f' at {shots_list(shots)}' if any(shots) else ''} "
        f"on {listed(untold, len(untold))}"
        for names, shots, untold in _alike(table, lambda row: [c for c in columns if row.entries[c].untold])
    ]
    again = run_command(choice, "--fresh")
    if not where:
        return []
    return [
        f"Some records do not keep what the {table.metric.title} needs: those of {'; '.join(where)}. "
        f"`{again}` makes them again, with the methods, shots and seeds of the first run."
    ]


def _alike(
    table: Table, columns: Callable[[Row], Sequence[str]]
) -> list[tuple[tuple[str, ...], list[int], tuple[str, ...]]]:
    """Return names of rows, numbers of shots and columns, for each set of ``columns(row)`` that is not empty.

    Rows of one number of shots with the same columns stand together, and so do numbers of shots at which the
    same rows have the same columns.
    """
    lists: dict[tuple[int, tuple[str, ...]], list[str]] = {}
    for row in table.rows:
        if some := tuple(columns(row)):
            lists.setdefault((row.shots, some), []).append(_name(row))
    alike: dict[tuple[tuple[str, ...], tuple[str, ...]], list[int]] = {}
    for (shots, some), names in lists.items():
        alike.setdefault((tuple(names), some), []).append(shots)
    return [(names, shots, some) for (names, some), shots in alike.items()]


def _place(record: str) -> str:
    """Return where a record lies: its path, or the packed file that holds it and its path below ``runs/``."""
    path = Path(record)
    if not path.is_file():
        for folder in path.parents:
            if (folder / packed.RECORDS).is_file():
                return f"`{path.relative_to(folder)}` in `{folder / packed.RECORDS}`"
    return f"`{record}`"


def _named_cells(cells: Sequence[tuple[str, int]]) -> str:
    names = list(dict.fromkeys(name for name, _ in cells))
    return f"{listed(names, noun='rows')} at {shots_list(n for _, n in cells)}"


def _name(row: Row) -> str:
    return row.names[0] + (f", {row.heads[2]}" if len(row.heads) > 2 else "")


def _missing_entry_notes(table: Table, columns: Sequence[str]) -> list[str]:
    """Name the entries that rows lack, but not those that failed or cannot be told.

    Rows that lack the same share a note.
    """

    def lacking(row: Row) -> list[str]:
        gaps = [c for c in columns if row.entries[c].value is None and row.entries[c].text != FAILED]
        return [c for c in gaps if not row.entries[c].untold]

    return [
        f"Incomplete at {shots_list(numbers)}: {_rows(table, some, numbers)} "
        f"{'has' if len(some) == 1 else 'have'} no result on {listed(gaps, len(gaps))}."
        for some, numbers, gaps in _alike(table, lacking)
    ]


def _partial_notes(table: Table, columns: Sequence[str]) -> list[str]:
    """Name the entries that are means over only some seeds of their row.

    Entries with the same seeds share a note.
    """
    lists: dict[tuple[int, str, str], list[str]] = {}
    for row in table.rows:
        for column in columns:
            entry = row.entries[column]
            if entry.value is not None and entry.partial:
                lists.setdefault((row.shots, column, _seeds(row, entry.seeds)), []).append(_name(row))
    alike: dict[tuple[tuple[str, ...], str], dict[str, dict[int, None]]] = {}
    for (shots, column, seeds), names in lists.items():
        alike.setdefault((tuple(names), seeds), {}).setdefault(column, {})[shots] = None
    notes = []
    for (some, seeds), where in alike.items():
        numbers = list(dict.fromkeys(n for shots in where.values() for n in shots))
        places = cells_text((column, n) for column, shots in where.items() for n in shots)
        has = "has" if len(some) == 1 else "have"
        notes.append(f"Fewer seeds: {_rows(table, some, numbers)} {has} {seeds}, on {places}.")
    return notes


def _absent_seed_notes(table: Table) -> list[str]:
    """Name the rows that lack, on all test sets, seeds that other rows with as many shots have."""
    lists: dict[str, list[tuple[str, int]]] = {}
    for row in table.rows:
        if row.absent and any(e.value is not None for e in row.entries.values()):
            lists.setdefault(_seeds(row, row.seeds), []).append((_name(row), row.shots))
    return [f"Fewer seeds than other rows: {cells_text(cells)} ({seeds})." for seeds, cells in lists.items()]


def _seeds(row: Row, there: Sequence[int]) -> str:
    """Say which of all seeds of a row's shots are there: ``seed 1, but not 2 and 3``."""
    away = [str(s) for s in sorted((*row.seeds, *row.absent)) if s not in there]
    return f"{seeds_list(there)}, but not {listed(away, len(away))}"


def _rows(table: Table, names: Sequence[str], numbers: Sequence[int]) -> str:
    """Name rows of these numbers of shots. The text is ``all rows`` if there are no others."""
    at = {n: [_name(row) for row in table.rows if row.shots == n] for n in numbers}
    everything = len(names) > 1 and all(at[n] == list(names) for n in numbers)
    return "all rows" if everything else listed(names, noun="rows")


def seeds_text(frame: pd.DataFrame) -> str:
    """Say over how many seeds the rows that use labels are averaged, by shots where that differs.

    Rows without labels have one run. Example: ``each the mean over 3 seeds (zero-shot: one run)``.
    """
    few = frame[frame["shots"] > 0]
    if not len(few):
        return "each from one run, because these methods draw no images"
    counts: Any = (
        few.groupby([*ROW, "dataset", "target"])["seed"].nunique().groupby("shots").agg(["min", "max"])
    )
    numbers: dict[tuple[int, int], list[int]] = {}
    for n, low, high in counts.itertuples():
        numbers.setdefault((int(low), int(high)), []).append(int(n))
    words = {pair: f"{pair[0]} to {pair[1]}" if pair[0] < pair[1] else str(pair[0]) for pair in numbers}
    each = [f"{words[pair]} seed{'s' if pair[1] > 1 else ''}" for pair in numbers]
    several = max(high for _, high in numbers) > 1
    once = " (zero-shot: one run)" if several and (frame["shots"] == 0).any() else ""
    if len(each) == 1:
        return f"each the mean over {each[0]}{once}"
    said = (f"{text} at {shots_list(some)}" for text, some in zip(each, numbers.values(), strict=True))
    return f"each the mean over {', '.join(said)}{once}"
