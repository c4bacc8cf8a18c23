"""A table in the form somebody asked for: console, markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text
from tabulate import tabulate

from bench.errors import BenchError
from bench.names import nearest
from bench.report.tables import Entry, Row, Table

FORMATS = ("console", "md", "csv", "json")


def render(table: Table, form: str) -> str:
    """The table as text. Raises BenchError for an unknown format."""
    forms = {"console": _console, "md": _markdown, "csv": _csv, "json": _json}
    if form not in forms:
        raise BenchError(f"--format {form}: unknown{nearest(form, FORMATS)}; one of: {', '.join(FORMATS)}")
    return forms[form](table)


def _head(row: Row) -> tuple[str, str]:
    return row.label, str(row.shots) if row.shots else "0"


def _console(table: Table) -> str:
    out = io.StringIO()
    # Wide enough for every column: a table that is cut is worse than one that wraps in the terminal.
    wide = RichTable(title=table.title, title_justify="left")
    wide.add_column("method", no_wrap=True)
    wide.add_column("shots", justify="right")
    for column in table.columns:
        wide.add_column("\n".join(column.split("-")), justify="right", no_wrap=True)
    shots = None
    for row in table.rows:
        if shots is not None and row.shots != shots:
            wide.add_section()
        shots = row.shots
        cells = [Text(row.entries[c].text, style="bold" if row.entries[c].best else "") for c in table.columns]
        wide.add_row(*_head(row), *cells)
    Console(file=out, width=40 + 12 * len(table.columns), force_terminal=False).print(wide)
    bold = io.StringIO()
    Console(file=bold, width=40 + 12 * len(table.columns), force_terminal=True, color_system=None).print(wide)
    return bold.getvalue() + "".join(f"{note}\n" for note in table.notes)


def plain(text: str) -> str:
    """A console table without the escape codes of bold numbers."""
    return Text.from_ansi(text).plain + "\n"


def _markdown(table: Table) -> str:
    def cell(entry: Entry) -> str:
        return f"**{entry.text}**" if entry.best else entry.text

    rows = [[*_head(row), *(cell(row.entries[c]) for c in table.columns)] for row in table.rows]
    right = ["left", *["right"] * (len(table.columns) + 1)]
    body = tabulate(rows, ["method", "shots", *table.columns], tablefmt="github", colalign=right, disable_numparse=True)
    return body + "\n\n" + "".join(f"{note}  \n" for note in table.notes)


def _csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["method", "shots", *table.columns])
    for row in table.rows:
        writer.writerow([*_head(row), *(row.entries[c].text for c in table.columns)])
    return out.getvalue()


def _json(table: Table) -> str:
    rows = [
        {
            "method": row.method, "label": row.label, "shots": row.shots, "oracle": row.oracle,
            "entries": {c: {"value": e.value, "text": e.text, "best": e.best} for c, e in row.entries.items()},
        }
        for row in table.rows
    ]  # fmt: skip
    return json.dumps({"title": table.title, "columns": table.columns, "rows": rows, "notes": table.notes}, indent=1) + "\n"
