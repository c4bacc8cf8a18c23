"""``bench data``: look at the images on this machine, and at the few-shot sets drawn from them."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import complete, say
from bench.cli.options import examples
from bench.names import counted

app = typer.Typer(
    help="Look for datasets on this machine, check their images, and draw few-shot sets.",
    no_args_is_help=True,
    epilog=examples("bench data status", "bench data verify digits", "bench data draw digits --shots 4"),
)

DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", help="Folder that holds the datasets' folders.", show_default=False),
]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad", help="Leave out classes of your own folder that cannot be used, instead of refusing."
    ),
]


OneDataset = Annotated[
    str,
    typer.Argument(
        help="A dataset's name, as in digits, a folder of images or a TOML file.",
        autocompletion=complete.dataset,
    ),
]


class Format(StrEnum):
    """The format in which a verb prints its result."""

    text = "text"
    json = "json"


@app.command(
    epilog=examples(
        "bench data draw digits --shots 4 --seed 2",
        "bench data draw digits --shots 4 --format text",
        "bench data draw ./photos --shots 8 --format text",
    )
)
def draw(
    dataset: OneDataset,
    shots: Annotated[
        int,
        typer.Option(help="Training images per class. Validation gets as many, but at most 4.", min=0),
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the draw. Another seed draws other images.")] = 1,
    data_root: DataRoot = None,
    index: Annotated[
        Path | None,
        typer.Option(help="Read and check this index file instead of drawing.", show_default=False),
    ] = None,
    format: Annotated[
        Format, typer.Option(help="json: an index file as Cross-Modal's code reads it. text: a summary.")
    ] = Format.json,
    skip_bad: SkipBad = False,
) -> None:
    """Print the few-shot set of a dataset: which images a fit with these shots and this seed gets.

    This needs the dataset's lists of images, but not the images themselves.
    """
    from bench.cli import reading
    from bench.data import catalog, fewshot
    from bench.data.dataset import path_digest

    opened = catalog.find(dataset, data_root, images=False, skip_bad=skip_bad)
    drawn = fewshot.read_index(opened, index) if index else fewshot.draw(opened, shots, seed)
    if format is Format.json:
        say.data(fewshot.export_index(opened, drawn), indent=4)
    else:
        for part, items in (("train", drawn.train), ("val", drawn.val)):
            say.echo(
                f"{part}: {counted(len(items), 'image')}, SHA-256 of the paths {path_digest(items.paths)}"
            )
    if line := reading.line(opened):
        say.echo(line, err=True)
    for note in filter(None, (*opened.notes, drawn.note)):
        say.echo(f"note: {note}", err=True)


@app.command(epilog=examples("bench data status", "bench data status dtd eurosat --data-root ./data"))
def status(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Datasets to look for, as in dtd eurosat (default: all).", autocompletion=complete.dataset
        ),
    ] = None,
    data_root: DataRoot = None,
    format: Annotated[Format, typer.Option(help="Format: text or json.")] = Format.text,
) -> None:
    """Show which datasets are here, whether their sizes are as published, and how to get the others."""
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


@app.command(epilog=examples("bench data verify digits", "bench data verify ./photos --skip-bad"))
def verify(
    dataset: OneDataset,
    data_root: DataRoot = None,
    max_pixels: Annotated[
        str | None,
        typer.Option(
            help="Refuse images with more pixels than this, as in 500M (default: as many as fit into "
            "half of the memory).",
            show_default=False,
        ),
    ] = None,
    format: Annotated[Format, typer.Option(help="Format: text or json.")] = Format.text,
    skip_bad: SkipBad = False,
    results: Annotated[
        Path, typer.Option(help="Compare the images with those that the records in this folder used.")
    ] = Path("results"),
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Compare the images also with those that this feature store used (default: $BENCH_CACHE, "
            "else the user's cache)."
        ),
    ] = None,
) -> None:
    """Open and hash every listed image; show the first ten that fail, and the likely cause.

    The exit code is 1 if an image fails, and 5 if images of a catalog dataset were exchanged since they were
    used. For a dataset of your own, `bench run --dry-run --why` says what changed in it.
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
            first, *more = result.exchanged
            what = (
                f"{len(more) + 1} images are not those that an earlier run used (first: {shown(first)})"
                if more
                else f"1 image is not the one that an earlier run used ({shown(first)})"
            )
            say.echo(f"{what}; the next run treats this dataset as another one")
    if result.failed:
        raise typer.Exit(Code.FAILED)
    if result.exchanged:
        raise typer.Exit(Code.CHANGED)
