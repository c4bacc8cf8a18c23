"""Bold and underline: the best of a column, and the rows that the stored predictions do not tell from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.report.frame import correct
from bench.report.table import Row, Score, Table
from bench.report.wording import shots_text
from bench.stats import column_marks

LEVEL = 0.95


def outcomes(entry: Score) -> NDArray[np.bool_]:
    """Right or wrong by seed and test image (S, n) behind an entry; BenchError if predictions do not fit."""
    vectors = [correct(path) for path in entry.paths]
    if len({len(v) for v in vectors}) > 1:
        raise BenchError(
            f"{entry.paths[0]}: other seeds were measured on another test set; run the cell again"
        )
    return np.stack(vectors)


def mark(table: Table, bold: bool = True, underline: bool = True) -> Table:
    """The table with the best of each column and block marked, and what is tied with it.

    Only rows of the same seeds are compared: those with the seeds that most rows of the block have.
    Test-oracle rows and partial averages take no part. Best is the highest printed value. Tied: the interval
    of the paired difference to the best, over seeds and images, contains 0 after Holm's correction within the
    column (``bench.stats.column_marks``).
    """
    blocks: dict[tuple[object, ...], list[int]] = {}
    for i, row in enumerate(table.rows):
        if not row.oracle:
            blocks.setdefault(row.block, []).append(i)
    rows: list[dict[str, Score]] = [dict(row.entries) for row in table.rows]
    notes: list[str] = []
    lost: dict[str, None] = {}
    for positions in blocks.values():
        rivals, others = _same_seeds(table.rows, positions)
        if others and (bold or underline):
            notes += [f"{r.names[0]} at {shots_text(r.shots)}" for i in others if _shown(r := table.rows[i])]
        for column in table.columns:
            entries_at = {i: table.rows[i].entries[column] for i in rivals}
            compared = [i for i, e in entries_at.items() if e.value is not None and not e.partial]
            if len(compared) < 2:
                continue
            printed = {i: round(entries_at[i].value or 0.0, 2) for i in compared}
            top = [i for i in compared if printed[i] == max(printed.values())]
            for i in top if bold else ():
                rows[i][column] = replace(rows[i][column], best=True)
            try:
                tied = _tied(table, column, compared) if underline else set()
            except BenchError as error:  # the numbers stand without the comparison
                lost.setdefault(str(error))
                continue
            for i in tied - set(top):
                rows[i][column] = replace(rows[i][column], tied=True)
    marked = [replace(row, entries=entries) for row, entries in zip(table.rows, rows, strict=True)]
    if bold and any(e.best for r in marked for e in r.entries.values()):
        table.notes.append("bold: best of the column among the rows of its shots")
    if underline and any(e.tied for r in marked for e in r.entries.values()):
        table.notes.append(
            "underlined: not told from the best; the 95 % interval of the paired difference "
            "(seeds and images vary, datasets are fixed) contains 0 after Holm's correction in the column"
        )
    if notes:
        table.notes.append("not compared, because other rows have other seeds: " + ", ".join(notes))
    table.notes += [f"not underlined: {reason}" for reason in lost]
    return replace(table, rows=marked)


def _shown(row: Row) -> bool:
    return any(e.value is not None for e in row.entries.values())


def _same_seeds(rows: Sequence[Row], positions: Sequence[int]) -> tuple[list[int], list[int]]:
    """Positions with the most common seeds (more seeds before fewer on a tie), and the others."""
    common, _ = max(
        Counter(rows[i].seeds for i in positions).items(), key=lambda counted: (counted[1], len(counted[0]))
    )
    return [i for i in positions if rows[i].seeds == common], [
        i for i in positions if rows[i].seeds != common
    ]


def _tied(table: Table, column: str, positions: Sequence[int]) -> set[int]:
    parts = table.averages.get(column, (column,))
    cells = {str(i): [outcomes(table.rows[i].entries[part]) for part in parts] for i in positions}
    try:
        return {int(i) for i, m in column_marks(cells, LEVEL).items() if m.tied}
    except ValueError as error:
        raise BenchError(f"column {column}: {error}") from error
