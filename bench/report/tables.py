"""Tables as data: which number stands where, what is best, what is missing; ``render`` turns them into text.

``table`` makes the paper's tables of a DataFrame of records: 1 (dataset x shots x method), 3 (shifts),
``ablation`` (settings and prompt sets), and each of them against published numbers. Table 2 (sizes) needs no
records.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.names import nearest

ORACLE = "test-oracle"
MISSING, FAILED, AVERAGE = "-", "ERR", "average"
WHICH = ("1", "2", "3", "ablation")


@dataclass(frozen=True)
class Entry:
    """One place of a table: a value (percent, unless the column says otherwise) or None, and the text that
    shows it.

    ``best`` prints bold and ``tied`` underlined; ``partial`` marks an average over incomplete rows. ``paths``
    are the records behind the value, one per seed in the row's order; ``note`` is a remark on this place.
    """

    value: float | None = None
    text: str = MISSING
    best: bool = False
    tied: bool = False
    partial: bool = False
    paths: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One line. ``heads`` are the texts of the columns that name it, ``names`` the same for machine-readable
    forms.

    Rows of one ``block`` stand together and compete; test-oracle rows (``oracle``) are never best. ``key``:
    the coordinates that its records share (backbone, method, shots, prompts, protocol, preset, variant).
    """

    heads: tuple[str, ...]
    entries: dict[str, Entry]
    names: tuple[str, ...] = ()
    method: str = ""
    shots: int = 0
    oracle: bool = False
    block: tuple[object, ...] = ()
    seeds: tuple[int, ...] = ()
    key: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The method, with whatever tells its rows apart."""
        return self.heads[0]


@dataclass
class Table:
    """A titled table. ``heads`` name the leading columns, ``columns`` the others; ``notes`` stand below.

    ``averages``: columns that average others, with those. ``left``: columns of text, set to the left.
    """

    title: str
    columns: list[str]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    heads: tuple[str, ...] = ("method", "shots")
    averages: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left: tuple[str, ...] = ()

    def text(self, form: str = "md") -> str:
        """The table as console, md, latex, csv, html or json text."""
        from bench.report.render import render

        return render(self, form)


def broken(column: str) -> list[str]:
    """A column's name in pieces for several lines, so that a column is hardly wider than its numbers."""
    return re.sub(r"(?<=[-_ ])", "\n", column).split("\n") if len(column) > 8 else [column]


def table(
    frame: pd.DataFrame,
    which: str = "1",
    *,
    methods: Sequence[str] = (),
    datasets: Sequence[str] = (),
    shots: Sequence[int] = (),
    backbone: str | None = None,
    prompts: Sequence[str] = (),
    protocol: str | None = None,
    preset: str | None = None,
    variants: bool = False,
    partial: bool = False,
    bold: bool = True,
    underline: bool = True,
    against: str | None = None,
    base: str | None = None,
    targets: Sequence[str] = (),
    counts: Mapping[str, Mapping[str, int]] | None = None,
) -> Table:
    """Table ``which`` ('1', '2', '3' or 'ablation') of a DataFrame from ``load_results``; means over seeds,
    in percent.

    Names narrow it down. ``variants``: rows with changed settings too. ``partial``: averages over incomplete
    rows, marked. ``bold`` marks the best of a column, ``underline`` those that the data do not tell from it
    (``marks``). ``against``: published numbers beside ours ('paper' or another source in results/paper).
    ``base``: the method or prompt set that an ablation measures changes from. ``targets``: shifted test sets
    in the order wanted (3), or to show at all (ablation). ``counts``: sizes of datasets by name (2). Raises
    BenchError for unknown names and for mixed backbones where one is needed.
    """
    from bench.report import paper, paper_ablation, tables_ablation, tables_accuracy, tables_sizes
    from bench.report.choose import Choice

    if which not in WHICH:
        raise BenchError(f"no table '{which}'{nearest(which, WHICH)}; there are {', '.join(WHICH)}")
    choice = Choice(
        tuple(methods),
        tuple(datasets),
        tuple(shots),
        backbone,
        tuple(prompts),
        protocol,
        preset,
        variants or which == "ablation",
    )
    if which == "2":
        return tables_sizes.table_2(counts or {}, frame, against)
    if against is not None:
        if which == "ablation":
            return paper_ablation.against(frame, choice, against)
        return paper.against(frame, which, choice, against)
    if which == "ablation":
        return tables_ablation.table_ablation(frame, choice, tuple(targets), base, partial)
    make = tables_accuracy.table_1 if which == "1" else tables_accuracy.table_3
    return make(frame, choice, tuple(targets), partial, bold, underline)
