"""A table in the form somebody asked for; the larger forms have modules of their own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

from bench.errors import BenchError
from bench.names import nearest
from bench.report.render_console import PIPED, console
from bench.report.render_html import html
from bench.report.render_latex import latex
from bench.report.table import Score, Table

FORMATS = ("console", "md", "latex", "csv", "html", "json")
ENDINGS = {
    ".txt": "console",
    ".md": "md",
    ".tex": "latex",
    ".csv": "csv",
    ".html": "html",
    ".htm": "html",
    ".json": "json",
}


def form_of(form: str | None, out: Path | None) -> str:
    """The format that is asked for, else that of the file's ending, else ``console``.

    Raises BenchError for an unknown format, for a file of a known ending of another one, and for an unknown
    ending where no format is asked for.
    """
    if form is not None and form not in FORMATS:
        raise BenchError(f"--format {form}: unknown{nearest(form, FORMATS)}; one of: {', '.join(FORMATS)}")
    by_ending = ENDINGS.get(out.suffix.lower()) if out is not None else None
    if form is not None and by_ending not in (None, form):
        raise BenchError(f"--out {out} ends as {by_ending} does, and --format says {form}: leave one out")
    if out is not None and form is None and by_ending is None:
        raise BenchError(
            f"--out {out}: no format has this ending; end it in {', '.join(ENDINGS)}, or name a --format"
        )
    return form or by_ending or "console"


def render(table: Table, form: str, width: int = PIPED, styled: bool = True) -> str:
    """The table as text. Raises BenchError for an unknown format.

    ``width`` and ``styled`` are for ``console``: characters of a line, and whether it has escape codes for
    bold and underlined.
    """
    forms: dict[str, Callable[[Table], str]] = {
        "console": lambda table: console(table, width, styled),
        "md": _markdown,
        "latex": latex,
        "csv": _csv,
        "html": html,
        "json": _json,
    }
    return forms[form_of(form, None)](table)


class PrintedTable(Table):
    """A table that prints itself: what ``bench.table`` and ``bench.compare`` give."""

    def text(self, form: str = "md") -> str:
        """The table as console, md, latex, csv, html or json text. Raises BenchError for another format."""
        return render(self, form)


def printed(table: Table) -> PrintedTable:
    """The same table, which prints itself."""
    return PrintedTable(**vars(table))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def _markdown(table: Table) -> str:
    from tabulate import tabulate

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
                    "seeds": e.seeds,
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
