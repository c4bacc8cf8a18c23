"""Write a table in the requested format. The longer formats have modules of their own."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

from bench.errors import BenchError
from bench.names import in_json, nearest
from bench.report.render_console import PIPED, console
from bench.report.render_html import html
from bench.report.render_latex import latex
from bench.report.render_markdown import markdown
from bench.report.table import Table, shown

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
    """Return the requested format, else the one of the file's ending, else ``console``.

    Raises BenchError for an unknown format, for a file whose known ending contradicts the format, and for an
    unknown ending if no format is requested.
    """
    if form is not None and form not in FORMATS:
        raise BenchError(f"--format {form}: unknown{nearest(form, FORMATS)}; one of: {', '.join(FORMATS)}")
    by_ending = ENDINGS.get(out.suffix.lower()) if out is not None else None
    if form is not None and by_ending not in (None, form):
        raise BenchError(f"--out {out} ends like {by_ending}, but --format says {form}: leave one out")
    if out is not None and form is None and by_ending is None:
        raise BenchError(
            f"--out {out}: no format has this ending; end it in {', '.join(ENDINGS)}, or name a --format"
        )
    return form or by_ending or "console"


def render(table: Table, form: str, width: int = PIPED, styled: bool = True) -> str:
    """Write a table as text. Raises BenchError for an unknown format.

    ``width`` and ``styled`` matter for ``console`` only: characters per line, and whether bold and underlined
    numbers get escape codes. Names are plain text in every format: characters that are not printable become
    escapes (``bench.names``; in JSON those of JSON), and characters with a meaning in the format are escaped.
    In CSV an apostrophe stands before a text that a spreadsheet would compute.
    """
    forms: dict[str, Callable[[Table], str]] = {
        "console": lambda table: console(table, width, styled),
        "md": markdown,
        "latex": latex,
        "csv": _csv,
        "html": html,
        "json": _json,
    }
    name = form_of(form, None)
    return forms[name](table if name == "json" else shown(table))


class PrintedTable(Table):
    """A table that prints itself, as ``bench.table`` and ``bench.compare`` return it."""

    def text(self, form: str = "md") -> str:
        """Write the table as console, md, latex, csv, html or json. Raises BenchError for another format."""
        return render(self, form)


def printed(table: Table) -> PrintedTable:
    """Return the same table as one that prints itself."""
    return PrintedTable(**vars(table))


# The start of a spreadsheet's formula, and numbers that start in the same way.
_FORMULA = re.compile(r"[=+\-@\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-][\d.]+( %|\*| \(\d+/\d+\)| to [+-][\d.]+)?|-")


def _csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    # A table of another metric than accuracy says so in every row, so that files can be joined.
    metric = {"metric": table.metric.name, "unit": table.metric.unit} if table.metric else {}
    writer.writerow(map(_text, [*table.heads, *metric, *table.columns]))
    for row in table.rows:
        texts = (row.entries[c].text for c in table.columns)
        cells = [*(row.names or row.heads), *metric.values(), *texts]
        writer.writerow(map(_text, cells))
    return out.getvalue()


def _text(cell: str) -> str:
    """Return a cell that no spreadsheet computes.

    An apostrophe is put before what begins like a formula and is no number.
    """
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell


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
    one = table.metric
    metric = (
        {"name": one.name, "title": one.title, "unit": one.unit, "lower_is_better": one.lower_is_better}
        if one
        else None
    )
    whole = {
        "title": table.title,
        **({"metric": metric} if metric else {}),
        "heads": table.heads,
        "columns": table.columns,
        "rows": rows,
        "notes": table.notes,
    }
    return in_json(json.dumps(whole, indent=1, ensure_ascii=False, default=str)) + "\n"
