"""A table on the terminal or in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from bench.report.table import Table


def show(table: Table, form: str, out: Path | None) -> None:
    """Print ``table`` in ``--format``'s format, or write it to ``out``; only terminals get escape codes."""
    from bench.files import write_bytes
    from bench.report import render

    text = render.render(table, form)
    if form == "console" and (out is not None or not sys.stdout.isatty()):
        text = render.plain(text)
    if out is not None:
        write_bytes(out, text.encode())
    else:
        typer.echo(text, nl=False)
