"""``bench report``: write all results into one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import complete, options, say
from bench.cli.options import Folders
from bench.names import counted


def report(
    results: Folders = None,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Few-shot CLIP adaptation",
    plugin: Annotated[
        list[Path] | None,
        typer.Option(
            help="File of a plugin that made some of the records, so that the commands in the report name "
            "it. Give the option again to name more."
        ),
    ] = None,
    datasets: Annotated[
        str | None,
        typer.Option(
            help="Paths of your own datasets among the records, as in ./pets, so that the commands in the "
            "report name them.",
            autocompletion=complete.datasets,
        ),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(
            envvar="BENCH_DATA",
            help="Folder that holds the datasets' folders, for pictures of mistakes.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write all results as one HTML file: tables, figures, statistics, and the records behind every number.

    The file opens in a browser and needs no network.
    """
    from bench.cli.run import SUITE
    from bench.cli.steps import Steps
    from bench.cli.table import shifts, with_titles
    from bench.data import catalog, seen
    from bench.data.dataset import Dataset
    from bench.features.store import default_root
    from bench.files import write_bytes
    from bench.registry import builtin, with_plugins
    from bench.report.html.page import STEPS
    from bench.report.html.page import report as make
    from bench.suite import load

    options.writable(out, (".html", ".htm"))
    with Steps("report") as steps:
        steps.step("records", 0, STEPS + 1)
        frame = with_titles(options.records(results))
        known, usual = with_plugins(tuple(plugin or ())), builtin().sources
        prompts = {method.name: method.prompts for method in known.methods.values()}
        files = {m.name: "" if key in usual else known.sources[key] for key, m in known.methods.items()}
        places = options.recorded(datasets, set(frame["dataset"]))
        used = (*options.folders(results), default_root())

        def images(name: str) -> Dataset:
            return seen.current(catalog.find(places.get(name, name), data_root, skip_bad=True), used)

        text = make(
            frame,
            title=title,
            prompts=prompts,
            plugins=files,
            places=places,
            images=images,
            targets=shifts(frame),
            first=load(SUITE).methods,
            say=lambda what, done, total: steps.step(what, done + 1, total + 1),
        )
    write_bytes(out, text.encode())
    many = counted(len(frame), "record")
    say.echo(f"{out}: {many}, {len(text) / 1e6:.1f} MB; opens in a browser, without a network")
    options.complete(frame)
