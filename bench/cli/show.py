"""A table on the terminal or in a file."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from bench.report.table import Table


def show(table: Table, form: str, out: Path | None) -> None:
    """Print ``table`` in a format, or write it to ``out``.

    Only terminals get escape codes, and lines of their width.
    """
    from bench.files import write_bytes
    from bench.report.render import render

    if out is not None:
        write_bytes(out, render(table, form, styled=False).encode())
    elif sys.stdout.isatty():
        typer.echo(render(table, form, shutil.get_terminal_size().columns), nl=False)
    else:
        typer.echo(render(table, form, styled=False), nl=False)
