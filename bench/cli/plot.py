"""``bench plot``: draw the records as the paper's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import complete, options, say


def plot(
    kind: Annotated[
        str,
        typer.Argument(
            help="shots: accuracy by images per class. sweep: accuracy by a setting. beta: change of "
            "accuracy by the blending weight. prompts: one method with several prompt sets. cd: critical "
            "differences of average ranks. time: accuracy by seconds of fitting. reliability: accuracy by "
            "confidence. confusion: the most confused pairs of classes. risk-coverage: errors among the "
            "images that a method is surest of.",
            autocompletion=complete.figures,
        ),
    ] = "shots",
    results: options.Folders = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write, ending in .pdf, .png or .svg (default: KIND.pdf, as in shots.pdf)."
        ),
    ] = None,
    methods: options.Methods = None,
    datasets: options.DatasetsToo = None,
    shots: options.ShotNumbers = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Show only this backbone. Needed where the folder has records of several, except for beta.",
            autocompletion=complete.backbone,
        ),
    ] = None,
    prompts: options.Prompts = None,
    protocol: options.OneProtocol = None,
    preset: options.OnePreset = None,
    setting: Annotated[
        str | None,
        typer.Option(
            help="For sweep and beta: the setting on the x axis, as in safe.lr (default for beta: beta).",
            autocompletion=complete.setting,
        ),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(
            envvar="BENCH_DATA", help="For confusion: read the class names in this folder of datasets."
        ),
    ] = None,
    dpi: Annotated[int, typer.Option(help="Resolution of a PNG file, in dots per inch.", min=50)] = 300,
) -> None:
    """Draw a figure of the recorded results.

    The same records give the same file, byte by byte.
    """
    from bench.cli.run import SUITE
    from bench.cli.table import with_titles
    from bench.report.figures import plot as figures
    from bench.suite import load

    figures.check(kind, setting)
    path = options.writable(out or Path(f"{kind}.pdf"), [f".{form}" for form in figures.FORMATS])
    frame = with_titles(options.records(results))
    where = options.recorded(datasets, {*frame["dataset"], *frame["target"]})
    drawn = figures.plot(
        frame,
        kind,
        methods=options.names(methods),
        datasets=tuple(where),
        shots=options.numbers(shots, "--shots"),
        backbone=backbone,
        prompts=options.names(prompts),
        protocol=protocol,
        preset=preset,
        setting=setting,
        first=load(SUITE).methods,
        written=where,
        data_root=data_root,
    )
    figures.save(drawn, path, dpi)
    say.echo(f"{path}: {drawn.alt}")
    for note in drawn.notes:
        say.echo(f"note: {note}")
    options.complete(frame)
