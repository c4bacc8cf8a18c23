"""``bench compare A B``: compare two methods on the same images and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import complete, options, say
from bench.names import counted

if TYPE_CHECKING:
    from PIL import Image

    from bench.data.dataset import Dataset
    from bench.report.compare import Comparison
    from bench.report.pairs import Pair


def compare(
    first: Annotated[
        str,
        typer.Argument(
            help="A method, as in safe. safe:beta=0.5 means the rows with that setting, and safe@hand those "
            "of one prompt set.",
            autocompletion=complete.row,
        ),
    ],
    second: Annotated[
        str,
        typer.Argument(
            help="The method to compare it with, written in the same way.", autocompletion=complete.row
        ),
    ],
    results: options.Folders = None,
    datasets: Annotated[
        str | None,
        typer.Option(
            "--datasets",
            "--dataset",
            help="Compare on these datasets alone, as in digits,emoji; your own by name or path (by path for "
            "--images).",
            autocompletion=complete.datasets,
        ),
    ] = None,
    shots: options.ShotNumbers = None,
    backbone: options.Backbone = None,
    prompts: Annotated[
        str | None,
        typer.Option(help="Prompt set of both methods, as in hand.", autocompletion=complete.prompts),
    ] = None,
    protocol: options.OneProtocol = None,
    preset: options.OnePreset = None,
    over: Annotated[
        str,
        typer.Option(
            help="What the average must hold for. draws: these datasets, with other draws of the support "
            "images and other test images. datasets: also other datasets of the same kind, as in 'is safe "
            "better on a dataset that I have not tried?'; this needs at least 3 datasets.",
            autocompletion=complete.over,
        ),
    ] = "draws",
    metric: options.Metric = "top1",
    classes: Annotated[
        int,
        typer.Option(
            help="How many classes to name on which the first method gains most accuracy, and how many on "
            "which it loses most; 0 for none."
        ),
    ] = 3,
    format: options.TableFormat = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Also write contact sheets (PNG) into this folder: the images that only one of the two gets "
            "right."
        ),
    ] = None,
    most: Annotated[
        int, typer.Option(help="With --images: how many images of each kind a sheet shows.")
    ] = 16,
    data_root: Annotated[
        Path | None,
        typer.Option(
            envvar="BENCH_DATA",
            help="Folder that holds the datasets' folders: for --images, and for the names of classes.",
        ),
    ] = None,
    out: options.TableFile = None,
) -> None:
    """Say which of two methods is better, by how much, and how sure that is.

    Both are compared on the same images and seeds.
    """
    from bench.cli.show import form_of, show
    from bench.files import write_bytes
    from bench.report import compare as comparing
    from bench.report.sheet import Flips, encoded, flips
    from bench.report.wording import shots_text

    form = form_of(format, out)
    if images is not None:
        options.writable_folder(images, "--images")
    frame = options.records(results)
    where = options.recorded(datasets, set(frame["target"]))
    comparison = comparing.compare(
        frame,
        first,
        second,
        datasets=tuple(where),
        shots=options.numbers(shots, "--shots"),
        backbone=backbone,
        prompts=prompts,
        protocol=protocol,
        preset=preset,
        over=over,
        metric=metric,
        classes=classes,
        written=where,
        data_root=data_root,
    )
    show(comparison.table, form, out)
    if images is not None:
        for pair in comparison.pairs:
            name = safe(pair.dataset)
            if flips(pair) == Flips((), ()):
                say.echo(
                    f"{name}, {shots_text(pair.shots)}: 0 images differ, so no sheet is written", err=True
                )
                continue
            path = images / f"{name}-{pair.shots}-shots.png"
            dataset = catalog_find(where.get(name, name), data_root, options.folders(results)[0])
            write_bytes(path, encoded(contact_sheet(pair, comparison, dataset, most)))
            say.echo(f"wrote {path}", err=True)
    options.complete(frame)


def safe(name: str) -> str:
    """Return a recorded dataset's name for use in a path. Raises BenchError if it leads to another folder."""
    from bench.data.imagefile import escapes
    from bench.errors import BenchError
    from bench.names import shown

    if escapes(name) or "/" in name or "\\" in name:
        raise BenchError(f"a record is of a dataset '{shown(name)}', which is a path: delete that record")
    return name


def catalog_find(name: str, data_root: Path | None, results: Path) -> Dataset:
    """Return the dataset with its images as they are now; its digest tells whether the records used these."""
    from bench.data import catalog, seen
    from bench.features.store import default_root

    found = catalog.find(name, data_root, out=results, skip_bad=True)
    return seen.current(found, [results, default_root()])


def contact_sheet(pair: Pair, comparison: Comparison, dataset: Dataset, most: int) -> Image.Image:
    """Draw the images of one cell that only one of the two methods gets right, with both predictions.

    ``most``: images of each kind. Raises BenchError if the dataset changed since the records were made.
    """
    from bench.errors import BenchError
    from bench.records import store
    from bench.records.types import EvaluationRecord
    from bench.report.sheet import Picture, flips, seed_of, sheet
    from bench.report.wording import shots_text

    recorded = store.read(Path(pair.paths[0][0]))
    if not isinstance(recorded, EvaluationRecord) or recorded.parts.target != dataset.digest:
        raise BenchError(
            f"{pair.dataset}: its images changed since the records were made; run the cells again"
        )
    said = [[store.predictions(Path(path), ("top1",))["top1"] for path in side] for side in pair.paths]

    def picture(i: int) -> Picture:
        seed = seed_of(pair, i)
        top1 = [int(side[seed if len(side) > 1 else 0][i]) for side in said]
        words = [
            f"{name}: {dataset.classnames[k]}"
            for name, k in zip((comparison.first, comparison.second), top1, strict=True)
        ]
        return Picture(
            dataset.source.open(dataset.test.paths[i]), (dataset.classnames[dataset.test.labels[i]], *words)
        )

    changed = flips(pair)
    groups = [
        (f"only {name} is right: {counted(len(positions), 'image')}", [picture(i) for i in positions[:most]])
        for name, positions in (
            (comparison.first, changed.only_first),
            (comparison.second, changed.only_second),
        )
    ]
    seeds = (
        f"{len(pair.seeds)} seeds, the most consistent first"
        if len(pair.seeds) > 1
        else f"seed {pair.seeds[0]}"
    )
    return sheet(
        f"{comparison.first} and {comparison.second} on {pair.dataset}, {shots_text(pair.shots)} ({seeds})",
        groups,
    )
