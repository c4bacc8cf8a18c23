"""``bench data``: the images on this machine, and the few-shot sets drawn from them."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import say

app = typer.Typer(
    help="The images: what is here, whether it is whole, and its few-shot sets.", no_args_is_help=True
)

DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", help="Folder that contains the datasets' folders.", show_default=False),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Go on without classes of your own folder that cannot be used.")
]


class Format(StrEnum):
    """How a verb prints its result."""

    text = "text"
    json = "json"


@app.command()
def draw(
    dataset: Annotated[str, typer.Argument(help="A dataset's name, a folder of images or a TOML file.")],
    shots: Annotated[
        int, typer.Option(help="Training images per class; validation gets min(shots, 4).", min=0)
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 1,
    data_root: DataRoot = None,
    index: Annotated[
        Path | None,
        typer.Option(help="Read this index file, and check it, instead of drawing.", show_default=False),
    ] = None,
    format: Annotated[
        Format, typer.Option(help="json: a Cross-Modal index file; text: a summary.")
    ] = Format.json,
    skip_bad: SkipBad = False,
) -> None:
    """Print the few-shot set of a dataset. Needs its split file, no images."""
    from bench.cli import reading
    from bench.data import catalog, fewshot
    from bench.data.dataset import path_digest

    opened = catalog.find(dataset, data_root, images=False, skip_bad=skip_bad)
    drawn = fewshot.read_index(opened, index) if index else fewshot.draw(opened, shots, seed)
    if format is Format.json:
        say.data(fewshot.export_index(opened, drawn), indent=4)
    else:
        for part, items in (("train", drawn.train), ("val", drawn.val)):
            say.echo(f"{part}: {len(items)} images, SHA-256 of the paths {path_digest(items.paths)}")
    if line := reading.line(opened):
        say.echo(line, err=True)
    for note in filter(None, (*opened.notes, drawn.note)):
        say.echo(f"note: {note}", err=True)


@app.command()
def status(
    names: Annotated[
        list[str] | None, typer.Argument(help="Datasets to look for; all if none is named.")
    ] = None,
    data_root: DataRoot = None,
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.text,
) -> None:
    """Show which datasets are here, whether their sizes are as published, and what to do about the rest."""
    from bench.data.status import status as look

    rows = look(data_root, names or None)
    if format is Format.json:
        say.data([asdict(row) for row in rows])
        return
    width = max((len(row.name) for row in rows), default=0)
    for row in rows:
        sizes = row.counts or row.expected
        shown = ", ".join(f"{key} {value}" for key, value in sizes.items())
        say.echo(f"{row.name:<{width}}  {row.state:<12}  {shown if row.counts else f'({shown})'}")
    for row in rows:
        if row.todo:
            say.echo(f"\n{row.name}: {row.todo.removeprefix(f'{row.name}: ')}")


@app.command()
def verify(
    dataset: Annotated[str, typer.Argument(help="A dataset's name, a folder of images or a TOML file.")],
    data_root: DataRoot = None,
    max_pixels: Annotated[
        str | None,
        typer.Option(help="Refuse images with more, as in 500M (default: by memory).", show_default=False),
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.text,
    skip_bad: SkipBad = False,
    results: Annotated[
        Path, typer.Option(help="Compare the images with those that these records were made of.")
    ] = Path("results"),
    cache: Annotated[
        Path | None, typer.Option(help="And with those of this feature store (default: as `bench run`).")
    ] = None,
) -> None:
    """Open and hash every listed image; show the first ten that fail and the likely cause.

    Exit 1 if any fails, 5 if images of a dataset of the catalog were exchanged since they were used. Datasets
    of your own are known by their images' contents: `bench run --dry-run --why` says what changed.
    """
    from bench.cli import reading
    from bench.cli.codes import Code
    from bench.cli.steps import Steps
    from bench.data import catalog, limit
    from bench.data.verify import verify as check
    from bench.features.store import default_root
    from bench.names import shown

    most = limit.parsed(max_pixels) if max_pixels is not None else None
    opened = catalog.find(dataset, data_root, skip_bad=skip_bad, max_pixels=most)
    if line := reading.line(opened):
        say.echo(line, err=format is Format.json)
        for note in opened.notes:
            say.echo(f"note: {note}", err=format is Format.json)
    with Steps(shown(opened.name)) as steps:
        result = check(
            opened,
            partial(steps.count, "opening images"),
            [results, cache or default_root()],
            partial(steps.count, "hashing files"),
        )
    if format is Format.json:
        say.data(asdict(result))
    else:
        say.echo(f"{opened.name}: {result.checked - result.failed} of {result.checked} images open")
        for path, reason in result.failures:
            say.echo(f"  {path}: {reason}")
        if result.cause:
            say.echo(f"likely cause: {result.cause}")
        for remark in result.remarks:
            say.echo(f"note: {remark}")
        say.echo(f"contents: {result.contents}")
        if result.exchanged:
            say.echo(
                f"{len(result.exchanged)} images are not those that were used before, "
                f"first {shown(result.exchanged[0])}: a run takes them as another dataset"
            )
    if result.failed:
        raise typer.Exit(Code.FAILED)
    if result.exchanged:
        raise typer.Exit(Code.CHANGED)
