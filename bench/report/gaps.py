"""Write the notes below a table on what it lacks: results, seeds, what records do not keep, what failed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from bench.metrics import TEMPERATURES, Metric
from bench.names import TEST_ORACLE
from bench.records import packed
from bench.report.select import Choice, run_command
from bench.report.table import FAILED, Row, Table
from bench.report.wording import cells_text, listed, seeds_list, shots_list

_MOST = 5  # most causes of errors that notes name
_IMPORTED = "predictions came here by `bench import`, and how they were made is not known."


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
    if any(r.imported for r in table.rows):
        notes.append(f"Rows marked 'imported' were fitted elsewhere. Their {_IMPORTED}")
    if any("uses labels" in r.label for r in table.rows):
        notes.append("Prompts marked 'uses labels' were chosen or trained with labelled images.")
    return notes


def untold_notes(table: Table, columns: Sequence[str], choice: Choice) -> list[str]:
    """Name the entries of which some records cannot tell the table's metric, and what mends it."""
    metric = table.metric
    if metric is None:
        return []
    notes = []
    if own := _untold(table, columns, imported=False):
        notes.append(
            f"Some records do not keep what the {metric.title} needs: those of {own}. "
            f"`{run_command(choice, '--fresh')}` makes them again, with the methods, shots and seeds of the "
            "first run."
        )
    if theirs := _untold(table, columns, imported=True):
        notes.append(f"Imported predictions do not tell the {metric.title}: {theirs}. {mend_import(metric)}")
    return notes


def mend_import(metric: Metric) -> str:
    """Say, as a sentence, what lets imported predictions tell a metric, or that nothing does."""
    if "temperature" in metric.needs:
        return "An import has no temperature, so it cannot tell this."
    return "They were imported without probabilities: import them again with p_CLASS columns."


def bound_notes(table: Table, columns: Sequence[str], frame: pd.DataFrame) -> list[str]:
    """Name the entries of a metric after temperature scaling whose temperature validation could not fix."""
    if table.metric is None or "temperature" not in table.metric.needs:
        return []
    temperature = dict(zip(frame["path"], frame["temperature"], strict=True))
    notes = []
    for bound in TEMPERATURES:
        held = {path for path, value in temperature.items() if value == bound}
        cells = _alike(table, partial(_resting_on, held, columns))
        notes += at_bound(bound, [_where(table, *cell) for cell in cells])
    return notes


def _resting_on(held: Collection[str], columns: Sequence[str], row: Row) -> list[str]:
    """Return the columns in which a row's number rests on one of these records."""
    return [c for c in columns if any(path in held for path in row.entries[c].paths)]


def again(choice: Choice, imported: Collection[bool]) -> str:
    """Say, in sentences, how records of a number alone get the values of single images.

    ``imported``: whether the records were imported, for each of them.
    """
    ran = f"`{run_command(choice, '--fresh')}` makes them again with these." if not all(imported) else ""
    came = "Imported predictions have to be imported again." if any(imported) else ""
    return " ".join(filter(None, [ran, came]))


def at_bound(bound: float, where: Sequence[str]) -> list[str]:
    """Say which fits have a temperature at one of the bounds ``TEMPERATURES``; nothing for none."""
    if not where:
        return []
    return [
        f"The temperature of some fits is at its bound of {bound:g}, because validation could not fix it: "
        f"{'; '.join(where)}."
    ]


def imported_note(names: Sequence[str]) -> list[str]:
    """Say that the predictions of these methods were imported; nothing for none."""
    if not names:
        return []
    was, their = ("was", "Its") if len(names) == 1 else ("were", "Their")
    return [f"{listed(names, len(names))} {was} fitted elsewhere. {their} {_IMPORTED}"]


def _untold(table: Table, columns: Sequence[str], imported: bool) -> str:
    """Name the entries that imported rows, or the others, cannot tell in full; seeds if others tell it."""
    kinds = dict.fromkeys(_mute(row, c) for row in table.rows if row.imported == imported for c in columns)
    return "; ".join(
        _where(table, *cell) + (f" ({seeds_list(seeds)})" if seeds else "")
        for seeds in kinds
        if seeds is not None
        for cell in _alike(table, partial(_muted, imported, seeds, columns))
    )


def _muted(imported: bool, seeds: tuple[int, ...], columns: Sequence[str], row: Row) -> list[str]:
    """Return the columns in which the records of these seeds alone cannot tell the metric."""
    return [c for c in columns if row.imported == imported and _mute(row, c) == seeds]


def _mute(row: Row, column: str) -> tuple[int, ...] | None:
    """Return the seeds that cannot tell the metric: empty for all of them, None if all can."""
    entry = row.entries[column]
    return (entry.untold_seeds if entry.value is not None else ()) if entry.untold else None


def _where(table: Table, names: Sequence[str], shots: Sequence[int], columns: Sequence[str]) -> str:
    """Write rows, shots and columns: ``safe and coop at 1 shot on emoji``."""
    at = f" at {shots_list(shots)}" if any(shots) else ""
    return f"{_rows(table, names, shots)}{at} on {listed(columns, len(columns))}"


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
    """Name the entries that lack some seeds of their row. Entries with the same seeds share a note.

    Seeds whose records are there, but cannot tell the metric, are those of ``untold_notes``.
    """
    lists: dict[tuple[int, str, str], list[str]] = {}
    for row in table.rows:
        for column in columns:
            entry = row.entries[column]
            there = sorted({*entry.seeds, *entry.untold_seeds})
            if entry.value is not None and not set(row.seeds) <= set(there):
                lists.setdefault((row.shots, column, _seeds(row, there)), []).append(_name(row))
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
