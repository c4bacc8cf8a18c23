"""Tables for a terminal."""

from __future__ import annotations

import io
import textwrap

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from bench.report.table import Score, Table, broken

_WIDE = 10_000  # a table that is cut is worse than one that wraps in the terminal
_NOTES = 110  # characters per line of the notes


def console(table: Table) -> str:
    """The table with escape codes for bold and underlined, blocks apart, the notes wrapped below it."""
    wide = RichTable(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for i, head in enumerate(table.heads):
        wide.add_column(head, no_wrap=True, justify="left" if i == 0 else "right")
    for column in table.columns:
        wide.add_column(
            "\n".join(broken(column)), no_wrap=True, justify="left" if column in table.left else "right"
        )
    block = None
    for row in table.rows:
        if block is not None and row.block != block:
            wide.add_section()
        block = row.block
        wide.add_row(*(Text(h) for h in row.heads), *(_cell(row.entries[c]) for c in table.columns))
    out = io.StringIO()
    Console(file=out, width=_WIDE, force_terminal=True, color_system="standard", highlight=False).print(wide)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    wrap = textwrap.TextWrapper(
        _NOTES, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    notes = [wrap.fill(note) for note in table.notes]
    return "\n".join([f"\x1b[1m{table.title}\x1b[0m", *lines, *notes]) + "\n"


def _cell(entry: Score) -> Text:
    return Text(entry.text, style="bold" if entry.best else "underline" if entry.tied else "")
