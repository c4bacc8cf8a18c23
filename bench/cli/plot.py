"""``bench plot``: records as the paper's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import say
from bench.cli.options import Folders
from bench.names import PROTOCOLS


def plot(
    kind: Annotated[
        str, typer.Argument(help="shots, sweep, beta, prompts, cd (critical differences) or time.")
    ] = "shots",
    results: Folders = None,
    out: Annotated[Path | None, typer.Option(help="A .pdf, .png or .svg file (default: KIND.pdf).")] = None,
    methods: Annotated[str | None, typer.Option(help="Only these, comma-separated.")] = None,
    datasets: Annotated[str | None, typer.Option(help="Only these; your own by name or path.")] = None,
    shots: Annotated[str | None, typer.Option(help="Only these.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Needed when records of several are there (not for beta).")
    ] = None,
    prompts: Annotated[str | None, typer.Option(help="Only these prompt sets.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help=f"{', '.join(PROTOCOLS[:-1])} or {PROTOCOLS[-1]}.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Needed when records of several are there.")] = None,
    setting: Annotated[
        str | None,
        typer.Option(help="For sweep and beta: the setting on the x axis, as in safe.lr (beta: beta)."),
    ] = None,
    dpi: Annotated[int, typer.Option(help="Resolution of PNG files.", min=50)] = 300,
) -> None:
    """Draw a figure of the recorded results; the same records give the same file."""
    from bench.cli.options import complete, names, numbers, recorded, records, writable
    from bench.cli.run import SUITE
    from bench.cli.table import with_titles
    from bench.report.figures import plot as figures
    from bench.suite import load

    figures.check(kind, setting)
    path = writable(out or Path(f"{kind}.pdf"), [f".{form}" for form in figures.FORMATS])
    frame = with_titles(records(results))
    drawn = figures.plot(
        frame,
        kind,
        methods=names(methods),
        datasets=tuple(recorded(datasets, {*frame["dataset"], *frame["target"]})),
        shots=numbers(shots, "--shots"),
        backbone=backbone,
        prompts=names(prompts),
        protocol=protocol,
        preset=preset,
        setting=setting,
        first=load(SUITE).methods,
    )
    figures.save(drawn, path, dpi)
    say.echo(f"{path}: {drawn.alt}")
    for note in drawn.notes:
        say.echo(f"note: {note}")
    complete(frame)
