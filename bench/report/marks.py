"""Mark in a table which numbers are best (bold) and which the data cannot tell from the best (underlined)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from numpy.typing import NDArray

from bench.errors import BenchError
from bench.metrics import Metric
from bench.report import measures
from bench.report.gaps import again
from bench.report.measures import ACCURACY, Untold
from bench.report.select import Choice
from bench.report.table import Score, Table
from bench.report.wording import cells_text, listed, shots_list
from bench.stats import not_told_from_best

UNDERLINED = (
    "Underlined: the data cannot tell this number from the best, because the 95 % interval of their paired "
    "difference contains 0; the interval is wide enough to hold for all methods of the column together. "
    "This says nothing about other datasets or other classes."
)
ONE_SEED = (
    "with one seed, nothing can be said about other draws of the support set; run more seeds, as in "
    "--seeds 1,2,3."
)
K = TypeVar("K")


def outcomes(entry: Score, metric: Metric = ACCURACY) -> NDArray[Any]:
    """Return right or wrong by seed and test image (S, n) behind an entry, or the values of a metric.

    Raises Untold if the records do not keep what the metric needs, and BenchError if the predictions are gone
    or do not fit together.
    """
    return measures.outcomes(entry.paths, metric)


def mark(table: Table, bold: bool = True, underline: bool = True, choice: Choice | None = None) -> Table:
    """Return the table with the best entry of each column and block marked, and those that are tied with it.

    Only numbers over the same seeds are compared. Of a block, the rows with its most common seeds are taken.
    Of these, each column takes the entries with its most common seeds. Example: four rows have the seeds 1,
    2 and 3, and a fifth has only seed 1, so the fifth is left out everywhere. On one dataset, one of the four
    lacks seed 3, so it is left out of that column. Test-oracle rows and partial averages take no part. The
    best entry is the one with the highest printed value, or the lowest if lower is better. An entry is tied
    if ``bench.stats.not_told_from_best`` cannot tell it from the best. Nothing is tied where methods drew a
    support set and have one seed, because one draw says nothing about others. A column has no marks if an
    entry of it is a number without the values of single images behind it, as packed records may have it.
    ``choice``: what the table shows, for the command that mends this.
    """
    metric = table.metric or ACCURACY
    blocks: dict[tuple[object, ...], list[int]] = {}
    for i, row in enumerate(table.rows):
        if not row.oracle:
            blocks.setdefault(row.block, []).append(i)
    rows: list[dict[str, Score]] = [dict(row.entries) for row in table.rows]
    other: dict[str, dict[int, None]] = {}
    lost: dict[str, None] = {}
    once: dict[tuple[str, int], list[str]] = {}  # the columns with one seed, by backbone and shots
    told: set[tuple[str, int]] = set()  # where other columns have several seeds
    bare: dict[str, dict[int, None]] = {}  # rows of numbers without images, by column
    for (backbone, *_), positions in blocks.items():
        rivals, others = most_common({i: table.rows[i].seeds for i in positions})
        for i in others:
            if any(e.value is not None for e in table.rows[i].entries.values()):
                other.setdefault(table.rows[i].names[0], {})[table.rows[i].shots] = None
        # The average needs the outcomes of all columns again, so they are kept.
        outcomes_at: dict[tuple[int, str], NDArray[Any]] = {}
        for column in table.columns:
            compared = _comparable(table, column, rivals)
            apart = _there(table, column, rivals) - set(compared)
            for i in apart if len(compared) > 1 else ():
                row = table.rows[i]
                other.setdefault(f"{row.names[0]} on {column}", {})[row.shots] = None
            if len(compared) < 2:
                continue
            alone = (
                [i for i in compared if _bare(table, column, i, metric, outcomes_at)]
                if metric.needs and (bold or underline)
                else []
            )
            if alone:
                bare.setdefault(column, {}).update(dict.fromkeys(alone))
                continue
            digits = metric.digits
            printed = {i: round(table.rows[i].entries[column].value or 0.0, digits) for i in compared}
            best = (min if metric.lower_is_better else max)(printed.values())
            top = [i for i in compared if printed[i] == best]
            for i in top if bold else ():
                rows[i][column] = replace(rows[i][column], best=True)
            if not underline:
                continue
            first = table.rows[compared[0]]
            if drawn_once(first.shots, first.entries[column].seeds or first.seeds):
                once.setdefault((str(backbone), first.shots), []).append(column)
                continue
            told.add((str(backbone), first.shots))
            try:
                tied = _tied(table, column, compared, metric, outcomes_at)
            except BenchError as error:  # the numbers are shown without the comparison
                lost.setdefault(str(error))
                continue
            for i in tied - set(top):
                rows[i][column] = replace(rows[i][column], tied=True)
    marked = [replace(row, entries=entries) for row, entries in zip(table.rows, rows, strict=True)]
    notes = []
    if bold and any(e.best for r in marked for e in r.entries.values()):
        which = "best (lowest)" if metric.lower_is_better else "best"
        notes.append(
            f"Bold: the {which} number of its column among rows with the same shots, backbone and seeds."
        )
    if any(e.tied for r in marked for e in r.entries.values()):
        notes.append(UNDERLINED)
    if other and (bold or underline):
        who = "; ".join(f"{name} at {shots_list(shots)}" for name, shots in other.items())
        notes.append(f"Neither bold nor underlined, because the other rows have other seeds: {who}.")
    notes += _once_notes(once, told, len({block[0] for block in blocks}) > 1)
    notes += [f"Nothing is underlined here: {reason}" for reason in lost]
    notes += _bare_notes(table, bare, choice or Choice())
    return replace(table, rows=marked, notes=[*table.notes, *notes], styles=[*table.styles, *notes])


def drawn_once(shots: int, seeds: Sequence[int]) -> bool:
    """Return whether a number rests on a single draw of the support set.

    A method with 0 shots draws nothing, so its one seed is all there is.
    """
    return shots > 0 and len(seeds) == 1


def _once_notes(
    once: Mapping[tuple[str, int], Sequence[str]], told: Collection[tuple[str, int]], backbones: bool
) -> list[str]:
    """Say where nothing is underlined because of one seed. Columns are named if others are underlined."""
    alike: dict[tuple[str, str], list[int]] = {}
    for (backbone, shots), some in once.items():
        where = f" with {backbone}" if backbones else ""
        columns = f" on {listed(some, len(some))}" if (backbone, shots) in told else ""
        alike.setdefault((where, columns), []).append(shots)
    return [
        f"Nothing is underlined at {shots_list(numbers)}{where}{columns}: {ONE_SEED}"
        for (where, columns), numbers in alike.items()
    ]


def most_common(seeds: Mapping[K, tuple[int, ...]]) -> tuple[list[K], list[K]]:
    """Split names into those with the most common seeds and the others.

    In a draw the names with more seeds count as the most common.
    """
    if not seeds:
        return [], []
    common, _ = max(Counter(seeds.values()).items(), key=lambda counted: (counted[1], len(counted[0])))
    return [i for i in seeds if seeds[i] == common], [i for i in seeds if seeds[i] != common]


def _there(table: Table, column: str, positions: Sequence[int]) -> set[int]:
    """Return the positions that have a value in a column, without averages over incomplete rows."""
    entries = {i: table.rows[i].entries[column] for i in positions}
    return {i for i, e in entries.items() if e.value is not None and not (e.partial and not e.seeds)}


def _comparable(table: Table, column: str, positions: Sequence[int]) -> list[int]:
    """List the positions whose values in a column are means over the same seeds."""
    there = _there(table, column, positions)
    seeds = {i: table.rows[i].entries[column].seeds for i in positions if i in there}
    return most_common(seeds)[0]


def _values(
    table: Table, column: str, i: int, metric: Metric, known: dict[tuple[int, str], NDArray[Any]]
) -> list[NDArray[Any]]:
    """Return the values behind an entry, one array for each test set that it averages."""
    parts = table.averages.get(column, (column,))
    for part in parts:
        if (i, part) not in known:
            known[i, part] = outcomes(table.rows[i].entries[part], metric)
    return [known[i, part] for part in parts]


def _bare(
    table: Table, column: str, i: int, metric: Metric, known: dict[tuple[int, str], NDArray[Any]]
) -> bool:
    """Return whether an entry's records keep only its number, and not the values of single images."""
    try:
        _values(table, column, i, metric, known)
    except Untold:
        return True
    except BenchError:  # predictions are gone: marks say so where they need them
        return False
    return False


def _bare_notes(table: Table, bare: Mapping[str, Mapping[int, None]], choice: Choice) -> list[str]:
    """Say which columns have no marks, because of which rows."""
    alike: dict[tuple[int, ...], list[str]] = {}
    for column, at in bare.items():
        alike.setdefault(tuple(at), []).append(column)
    title = (table.metric or ACCURACY).title
    notes = []
    for some, columns in alike.items():
        rows = [table.rows[i] for i in some]
        mends = again(choice, [row.imported for row in rows])
        cells = cells_text(dict.fromkeys((row.names[0], row.shots) for row in rows))
        notes.append(
            f"No marks on {listed(columns, len(columns))}: the records of {cells} give the {title} as a "
            f"number, without the values of single images, which marks need. {mends}"
        )
    return notes


def _tied(
    table: Table,
    column: str,
    positions: Sequence[int],
    metric: Metric,
    known: dict[tuple[int, str], NDArray[Any]],
) -> set[int]:
    parts = table.averages.get(column, (column,))
    cells = {str(i): _values(table, column, i, metric, known) for i in positions}
    sources = [table.sources.get(part, part) for part in parts]
    try:
        return {int(i) for i in not_told_from_best(cells, sources, metric.bounds, metric.lower_is_better)}
    except ValueError as error:
        raise BenchError(f"column {column}: {error}") from error
