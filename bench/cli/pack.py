"""``bench pack``: a results folder as two small files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import say


def pack(
    results: Annotated[Path, typer.Option(help="Folder that `bench run` wrote to.")] = Path("results"),
    out: Annotated[Path, typer.Option(help="Folder of the packed records.")] = Path("results/pocket"),
    limit: Annotated[
        float | None, typer.Option(help="Megabytes that the files may take; above it nothing is written.")
    ] = 6.0,
) -> None:
    """Pack the records that tables use, with top-1 predictions, to commit them; read them with --results."""
    from bench.cli.codes import Code
    from bench.cli.options import writable_folder
    from bench.report.compact import pack as packing

    writable_folder(out)
    done = packing(results, out, None if limit is None else int(limit * 1e6))
    if done.bad:
        say.secho(f"bench: {done.bad}", err=True, fg="yellow")
    rest = f"; {done.left_out} replaced or unused records left out" if done.left_out else ""
    say.echo(
        f"packed {done.fits} fits and {done.evaluations} evaluations into {out}: "
        f"{done.size / 1e6:.2f} MB{rest}"
    )
    if done.bad:
        raise typer.Exit(Code.INCOMPLETE)
