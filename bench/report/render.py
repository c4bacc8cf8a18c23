"""A table in the form somebody asked for; the larger forms have modules of their own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

from rich.text import Text
from tabulate import tabulate

from bench.errors import BenchError
from bench.names import nearest
from bench.report.render_console import console
from bench.report.render_html import html
from bench.report.render_latex import latex
from bench.report.table import Score, Table

FORMATS = ("console", "md", "latex", "csv", "html", "json")


def render(table: Table, form: str) -> str:
    """The table as text; ``console`` has escape codes for bold and underlined (``plain`` removes them).

    Raises BenchError for an unknown format.
    """
    forms: dict[str, Callable[[Table], str]] = {
        "console": console,
        "md": _markdown,
        "latex": latex,
        "csv": _csv,
        "html": html,
        "json": _json,
    }
    if form not in forms:
        raise BenchError(f"--format {form}: unknown{nearest(form, FORMATS)}; one of: {', '.join(FORMATS)}")
    return forms[form](table)


class PrintedTable(Table):
    """A table that prints itself: what ``bench.table`` and ``bench.compare`` give."""

    def text(self, form: str = "md") -> str:
        """The table as console, md, latex, csv, html or json text. Raises BenchError for another format."""
        return render(self, form)


def printed(table: Table) -> PrintedTable:
    """The same table, which prints itself."""
    return PrintedTable(**vars(table))


def plain(text: str) -> str:
    """A console table without the escape codes of bold and underlined numbers."""
    return Text.from_ansi(text).plain + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def _markdown(table: Table) -> str:
    def cell(entry: Score) -> str:
        text = _escaped(entry.text)
        return f"**{text}**" if entry.best else f"<u>{text}</u>" if entry.tied else text

    rows = [[*map(_escaped, row.heads), *(cell(row.entries[c]) for c in table.columns)] for row in table.rows]
    align = [
        "left",
        *["right"] * (len(table.heads) - 1),
        *("left" if c in table.left else "right" for c in table.columns),
    ]
    heads = [*map(_escaped, [*table.heads, *table.columns])]
    body = tabulate(rows, heads, tablefmt="github", colalign=align, disable_numparse=True)
    return f"{body}\n\n" + "".join(_escaped(note) + "  \n" for note in table.notes)


def _csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*table.heads, *table.columns])
    for row in table.rows:
        writer.writerow([*(row.names or row.heads), *(row.entries[c].text for c in table.columns)])
    return out.getvalue()


def _json(table: Table) -> str:
    rows = [
        {
            "method": row.method,
            "label": row.label,
            "shots": row.shots,
            "oracle": row.oracle,
            "seeds": row.seeds,
            "heads": dict(zip(table.heads, row.names or row.heads, strict=True)),
            "key": dict(row.key),
            "entries": {
                c: {
                    "value": e.value,
                    "text": e.text,
                    "best": e.best,
                    "tied": e.tied,
                    "partial": e.partial,
                    "note": e.note,
                }
                for c, e in row.entries.items()
            },
        }
        for row in table.rows
    ]
    whole = {
        "title": table.title,
        "heads": table.heads,
        "columns": table.columns,
        "rows": rows,
        "notes": table.notes,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False, default=str) + "\n"
