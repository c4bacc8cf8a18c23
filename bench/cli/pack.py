"""``bench pack``: put a results folder into a few small files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import say
from bench.names import counted


def pack(
    results: Annotated[Path, typer.Option(help="Folder that `bench run` wrote.")] = Path("results"),
    out: Annotated[Path, typer.Option(help="Folder to write the files to.")] = Path("results/pocket"),
    limit: Annotated[
        float | None,
        typer.Option(help="Largest size of all files, in MB. If they are larger, nothing is written."),
    ] = 6.0,
    keep_outputs: Annotated[
        str | None,
        typer.Option(
            help="Keep the probabilities of every image too, in a third file: of all evaluations (`all`), or "
            "of those that pass a filter, as in 'methods=zero-shot,safe shots=16 seeds=1'. A filter names "
            "methods, datasets, shots, seeds, backbone, prompts or protocol. Rows with changed settings pass "
            "only `all`."
        ),
    ] = None,
) -> None:
    """Pack the records that tables use, with metrics and top-1 predictions, into two small files.

    With --keep-outputs they are three.

    The packed folder can be committed to a repository. Every verb that takes --results reads it. Metrics of
    probabilities, like the calibration error, have an interval only where --keep-outputs kept the images.
    """
    from bench.cli.codes import Code
    from bench.cli.options import writable_folder
    from bench.report.compact import pack as packing
    from bench.report.compact import parsed

    wanted = None if keep_outputs is None else parsed(keep_outputs)
    writable_folder(out)
    done = packing(results, out, None if limit is None else int(limit * 1e6), wanted)
    if done.bad:
        say.secho(f"bench: {done.bad}", err=True, fg="yellow")
    rest = f"; {counted(done.left_out, 'replaced or unused record')} left out" if done.left_out else ""
    kept = f", {done.with_outputs} of them with outputs," if wanted is not None else ""
    say.echo(
        f"packed {counted(done.fits, 'fit')} and {counted(done.evaluations, 'evaluation')}{kept} into {out}: "
        f"{done.size / 1e6:.2f} MB{rest}"
    )
    if done.bad:
        raise typer.Exit(Code.INCOMPLETE)
