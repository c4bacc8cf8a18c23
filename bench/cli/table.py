"""``bench table``: records as the paper's tables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def table(
    which: Annotated[str, typer.Argument(help="1: dataset x shots x method.")] = "1",
    results: Annotated[Path, typer.Option(help="Folder that `bench run` wrote to.")] = Path("results"),
    methods: Annotated[str | None, typer.Option(help="Only these, comma-separated.")] = None,
    datasets: Annotated[str | None, typer.Option(help="Only these, in this order.")] = None,
    shots: Annotated[str | None, typer.Option(help="Only these.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Needed when records of several are there.")] = None,
    format: Annotated[str, typer.Option(help="console, md, csv or json.")] = "console",
    partial: Annotated[bool, typer.Option("--partial", help="Show averages over incomplete rows, marked.")] = False,
    bold: Annotated[bool, typer.Option(help="Mark the best of each column.")] = True,
    out: Annotated[Path | None, typer.Option(help="Write to a file instead of the terminal.")] = None,
) -> None:
    """Print a table of the recorded results."""
    from bench.cli.options import names, numbers
    from bench.errors import BenchError
    from bench.report import frame, render, tables

    if which != "1":
        raise BenchError(f"bench table {which}: there is table 1 (dataset x shots x method)")
    found = tables.table_1(
        frame.load_results(results), names(methods), names(datasets), numbers(shots, "--shots"), backbone, partial, bold
    )
    text = render.render(found, format)
    if out is not None:
        from bench.files import write_bytes

        write_bytes(out, render.plain(text).encode() if format == "console" else text.encode())
        return
    terminal = format == "console" and sys.stdout.isatty()
    typer.echo(text if terminal or format != "console" else render.plain(text), nl=False)
