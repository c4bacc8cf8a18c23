"""Print a table on the terminal, or write it to a file."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli import say

if TYPE_CHECKING:
    from bench.report.table import Table


def form_of(form: str | None, out: Path | None) -> str:
    """Return the requested format, or the one that the ending of ``out`` means.

    Raises BenchError, before work is spent, if these disagree or ``out`` cannot be written.
    """
    from bench.cli.options import writable
    from bench.report import render

    found = render.form_of(form, out)
    if out is not None:
        writable(out)
    return found


def show(table: Table, form: str, out: Path | None) -> None:
    """Print ``table`` in a format, or write it to ``out``.

    Only a terminal gets styles, and lines of its width.
    """
    from bench.files import write_bytes
    from bench.report.render import render

    if out is not None:
        write_bytes(out, render(table, form, styled=False).encode())
        say.echo(f"wrote {out}", err=True)
    elif sys.stdout.isatty():
        say.made(render(table, form, shutil.get_terminal_size().columns))
    else:
        say.made(render(table, form, styled=False))
