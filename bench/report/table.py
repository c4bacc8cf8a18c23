"""Hold tables as data: which number stands where, what is best, what is missing.

Builders (``accuracy``, ``ablation``, ``sizes``, ``paper``, ``compare``) make tables, ``marks`` marks the best
numbers, and ``render`` turns tables into text. ``tables`` puts these together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bench import names
from bench.metrics import Metric

MISSING, FAILED, AVERAGE = "-", "ERR", "average"


@dataclass(frozen=True)
class Score:
    """One entry of a table: a value or None, and the text that is shown.

    ``value``: in percent, unless the column says otherwise. ``best`` prints bold and ``tied`` underlined.
    ``partial``: the value is a mean over only some of the row's seeds or test sets, and its text says so.
    ``paths``: the records behind the value, one for each of ``seeds``. ``note``: a remark on this entry.
    ``failed``: the records of the failures because of which there is no value. ``untold``: records that
    cannot tell the table's metric, because they do not keep what it needs, one for each of ``untold_seeds``.
    """

    value: float | None = None
    text: str = MISSING
    best: bool = False
    tied: bool = False
    partial: bool = False
    paths: tuple[str, ...] = ()
    note: str = ""
    seeds: tuple[int, ...] = ()
    failed: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()
    untold_seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Row:
    """One line of a table.

    ``heads``: the texts of the columns that name it; ``names``: the same for machine-readable forms. Rows of
    one ``block`` stand together and compete. ``oracle``: whether it is a test-oracle row, which is never
    best. ``seeds``: the seeds that it has anywhere; ``absent``: the seeds that only other rows with as many
    shots have. ``key``: the coordinates that its records share (``coordinates.ROW``). ``imported``: whether
    its predictions were made elsewhere.
    """

    heads: tuple[str, ...]
    entries: dict[str, Score]
    names: tuple[str, ...] = ()
    method: str = ""
    shots: int = 0
    oracle: bool = False
    block: tuple[object, ...] = ()
    seeds: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()
    key: Mapping[str, Any] = field(default_factory=dict)
    imported: bool = False

    @property
    def label(self) -> str:
        """Return the method, with whatever tells its rows apart."""
        return self.heads[0]


@dataclass
class Table:
    """A table with a title.

    ``heads``: the names of the leading columns; ``columns``: those of the others. ``notes``: the lines below
    the table. ``averages``: the columns that average others, with these others. ``left``: columns of text,
    which are aligned left. ``styles``: the notes that explain bold and underlined numbers, for forms that
    print neither. ``sources``: the dataset that the fits behind a column were trained on, where it is not
    the column's own; columns of one source share its draws. ``metric``: what the numbers are; None for
    accuracies and for tables of other things.
    """

    title: str
    columns: list[str]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    heads: tuple[str, ...] = ("method", "shots")
    averages: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    styles: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    metric: Metric | None = None


def shown(table: Table) -> Table:
    """Return the same table with characters that are not printable escaped (``bench.names``)."""
    columns: dict[str, str] = {}
    for name in table.columns:
        text = names.shown(name)
        while text in columns.values():  # two names that look alike stay two columns
            text += "'"
        columns[name] = text

    def of(texts: Iterable[str]) -> tuple[str, ...]:
        return tuple(columns.get(text) or names.shown(text) for text in texts)

    def line(row: Row) -> Row:
        entries = {
            columns[c]: replace(e, text=names.shown(e.text), note=names.shown(e.note))
            for c, e in row.entries.items()
            if c in columns
        }
        return replace(row, heads=of(row.heads), names=of(row.names), entries=entries)

    return Table(
        names.shown(table.title),
        list(columns.values()),
        [line(row) for row in table.rows],
        list(of(table.notes)),
        of(table.heads),
        {columns.get(c, c): of(d) for c, d in table.averages.items()},
        of(table.left),
        list(of(table.styles)),
        {columns.get(c, c): names.shown(d) for c, d in table.sources.items()},
        table.metric,
    )


def broken(column: str) -> list[str]:
    """Split a column's name into pieces for several lines, so that it is hardly wider than its numbers."""
    return re.sub(r"(?<=[-_ ])", "\n", column).split("\n") if len(column) > 8 else [column]
