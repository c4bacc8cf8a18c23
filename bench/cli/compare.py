"""``bench compare A B``: two methods on the same images and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import say
from bench.cli.options import Folders
from bench.names import RECIPE

if TYPE_CHECKING:
    from PIL import Image

    from bench.data.dataset import Dataset
    from bench.report.compare import Comparison
    from bench.report.pairs import Pair


def compare(
    first: Annotated[
        str, typer.Argument(help="A method; NAME:key=value for a variant, NAME@PROMPTS for a prompt set.")
    ],
    second: Annotated[str, typer.Argument(help="The method to compare it with.")],
    results: Folders = None,
    datasets: Annotated[
        str | None, typer.Option(help="Only these; your own by name or path (for --images: by path).")
    ] = None,
    shots: Annotated[str | None, typer.Option(help="Only these.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Needed when records of several are there.")] = None,
    prompts: Annotated[str | None, typer.Option(help="Prompt set of both methods.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help=f"Protocol of both methods (default: {RECIPE}).")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Needed when records of several are there.")] = None,
    format: Annotated[
        str | None,
        typer.Option(help="console, md, latex, csv, html or json (default: as --out ends, else console)."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Write contact sheets of the images that flipped to this folder.")
    ] = None,
    most: Annotated[int, typer.Option(help="Images of each kind on a contact sheet.")] = 16,
    data_root: Annotated[
        Path | None, typer.Option(envvar="BENCH_DATA", help="Folder of the datasets, for --images.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write to a file instead of the terminal.")] = None,
) -> None:
    """Say which of two methods is better, by how much, and how sure that is."""
    from bench.cli.options import complete, folders, numbers, recorded, records, writable_folder
    from bench.cli.show import form_of, show
    from bench.files import write_bytes
    from bench.report import compare as comparing
    from bench.report.sheet import encoded

    form = form_of(format, out)
    if images is not None:
        writable_folder(images, "--images")
    frame = records(results)
    where = recorded(datasets, set(frame["target"]))
    comparison = comparing.compare(
        frame,
        first,
        second,
        datasets=tuple(where),
        shots=numbers(shots, "--shots"),
        backbone=backbone,
        prompts=prompts,
        protocol=protocol,
        preset=preset,
    )
    show(comparison.table, form, out)
    if images is not None:
        for pair in comparison.pairs:
            name = safe(pair.dataset)
            path = images / f"{name}-{pair.shots}-shots.png"
            dataset = catalog_find(where.get(name, name), data_root, folders(results)[0])
            write_bytes(path, encoded(contact_sheet(pair, comparison, dataset, most)))
            say.echo(f"wrote {path}", err=True)
    complete(frame)


def safe(name: str) -> str:
    """A dataset's name as a record says it. Raises BenchError for one that leads to another folder."""
    from bench.data.imagefile import escapes
    from bench.errors import BenchError
    from bench.names import shown

    if escapes(name) or "/" in name or "\\" in name:
        raise BenchError(f"a record is of a dataset '{shown(name)}', which is no name; take that record away")
    return name


def catalog_find(name: str, data_root: Path | None, results: Path) -> Dataset:
    """The dataset with its images as they are now; whether they are those of the records, its digest says."""
    from bench.data import catalog, seen
    from bench.features.store import default_root

    found = catalog.find(name, data_root, out=results, skip_bad=True)
    return seen.current(found, [results, default_root()])


def contact_sheet(pair: Pair, comparison: Comparison, dataset: Dataset, most: int) -> Image.Image:
    """The images of one cell that only one of the two gets right, with what each said.

    Raises BenchError where the dataset is not as it was when the records were made.
    """
    from bench.errors import BenchError
    from bench.records import store
    from bench.records.types import EvaluationRecord
    from bench.report.sheet import Picture, flips, seed_of, sheet
    from bench.report.wording import shots_text

    recorded = store.read(Path(pair.paths[0][0]))
    if not isinstance(recorded, EvaluationRecord) or recorded.parts.target != dataset.digest:
        raise BenchError(
            f"{pair.dataset}: its images are not those of the records any more; run the cells again"
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
        (f"only {name} is right: {len(positions)} images", [picture(i) for i in positions[:most]])
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
