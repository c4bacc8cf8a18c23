"""``bench pack``: put a results folder into two small files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import say
from bench.names import counted


def pack(
    results: Annotated[Path, typer.Option(help="Folder that `bench run` wrote.")] = Path("results"),
    out: Annotated[Path, typer.Option(help="Folder to write the two files to.")] = Path("results/pocket"),
    limit: Annotated[
        float | None,
        typer.Option(help="Largest size of both files, in MB. If they are larger, nothing is written."),
    ] = 6.0,
) -> None:
    """Pack the records that tables use, with their top-1 predictions, into two small files.

    The packed folder can be committed to a repository. Every verb that takes --results reads it.
    """
    from bench.cli.codes import Code
    from bench.cli.options import writable_folder
    from bench.report.compact import pack as packing

    writable_folder(out)
    done = packing(results, out, None if limit is None else int(limit * 1e6))
    if done.bad:
        say.secho(f"bench: {done.bad}", err=True, fg="yellow")
    rest = f"; {counted(done.left_out, 'replaced or unused record')} left out" if done.left_out else ""
    say.echo(
        f"packed {counted(done.fits, 'fit')} and {counted(done.evaluations, 'evaluation')} into {out}: "
        f"{done.size / 1e6:.2f} MB{rest}"
    )
    if done.bad:
        raise typer.Exit(Code.INCOMPLETE)
