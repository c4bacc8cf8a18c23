"""``bench explain shapley`` and ``share``: measure what the parts of an image add to a class's score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import complete, say
from bench.cli.explain_shared import (
    BackboneName,
    Cache,
    ClassName,
    DataRoot,
    Device,
    Fill,
    Image,
    MethodName,
    OfDataset,
    Png,
    Results,
    Seed,
    Set,
    Shots,
    ValueKind,
    caption_of,
    label_of,
    name_of,
    opened,
    png,
    save,
)
from bench.names import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.explain.picture import Picture
    from bench.explain.shapley import Shapley


def shapley(
    image: Image,
    masks: Annotated[
        Path | None,
        typer.Option(help="Picture of the image's size that shows each part in a colour of its own."),
    ] = None,
    grid: Annotated[
        int | None,
        typer.Option(
            help="Take N x N rectangles as parts, instead of masks (default: 3 if no parts are known)."
        ),
    ] = None,
    dataset: OfDataset = None,
    method: MethodName = "safe",
    shots: Shots = 16,
    seed: Seed = 1,
    class_: ClassName = None,
    value: ValueKind = "probability",
    fill: Fill = "mean",
    permutations: Annotated[
        int,
        typer.Option(help="Number of random orders to average, if there are more than 10 parts.", min=2),
    ] = 200,
    backbone: BackboneName = None,
    set_: Set = None,
    results: Results = Path("results"),
    cache: Cache = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    out: Png = None,
) -> None:
    """Measure what each part of an image adds to a class's score (Shapley values), before and after a fit."""
    if masks and grid:
        from bench.errors import BenchError

        raise BenchError("--masks and --grid: choose one")
    path = png(out, Path("shapley.png"))
    subject, (picture,) = opened(
        image,
        1,
        method=method,
        shots=shots,
        seeds=(seed,),
        backbone=backbone,
        set_=set_,
        results=results,
        cache=cache,
        device=device,
        dataset=dataset,
        data_root=data_root,
        class_=class_,
        valued=(value, fill),
    )
    from dataclasses import replace

    from bench.explain import figure
    from bench.explain import picture as pictures
    from bench.explain.parts import part_values
    from bench.explain.subject import dense

    if masks:
        picture = replace(picture, masks=pictures.file_masks(masks, picture, subject.tower.spec))
    elif grid or not picture.masks:
        picture = replace(picture, masks=pictures.grid_masks(len(picture.pixels), grid or 3))
    clean = dense(subject.tower, picture.pixels[None])
    k = label_of(subject, picture, clean, class_)
    values = part_values(subject.tower, subject.models, picture, k, value, fill, permutations)
    name = name_of(subject.dataset, k)
    _print_values(picture, name, values, value)
    caption = caption_of(subject, picture, clean, k)
    save(figure.part_values(picture, caption, values, ("before", "after"), f"{value} of {name}"), path)


def share(
    dataset: Annotated[
        str,
        typer.Option(help="Dataset of composed scenes, as in mammals.", autocompletion=complete.dataset),
    ] = "mammals",
    scenes: Annotated[int, typer.Option(help="Number of test scenes, spread over the classes.", min=2)] = 200,
    seeds: Annotated[
        str, typer.Option(help="Seeds of the fits, as in 1,2,3. Every seed draws other training images.")
    ] = "1,2,3",
    method: MethodName = "safe",
    shots: Shots = 16,
    value: ValueKind = "margin",
    fill: Fill = "mean",
    backbone: BackboneName = None,
    set_: Set = None,
    results: Results = Path("results"),
    cache: Cache = None,
    device: Device = "auto",
    out: Annotated[Path, typer.Option(help="Folder for the JSON file and the figure.")] = Path("explain"),
) -> None:
    """Measure whether a fit moves importance to the object.

    The answer is the mean shares of object (glyph), distractors and background, with 95 % intervals.
    """
    from bench.cli.options import numbers, writable_folder

    writable_folder(out)
    subject, pictures = opened(
        dataset,
        scenes,
        method=method,
        shots=shots,
        seeds=numbers(seeds, "--seeds"),
        backbone=backbone,
        set_=set_,
        results=results,
        cache=cache,
        device=device,
        valued=(value, fill),
        parts=True,
    )
    from bench.explain import figure
    from bench.explain import share as sharing
    from bench.files import write_json
    from bench.report.wording import shots_text

    def progress(done: int) -> None:
        if done % 20 == 0 or done == len(pictures):
            say.echo(f"{done} of {len(pictures)} scenes", err=True)

    rows = sharing.measure(subject, pictures, value, fill, progress)
    shares = sharing.summary(rows)
    title = subject.after[0].name.partition(",")[0]
    said = sharing.verdict(title, shares)
    stem = f"share-{subject.dataset.name}-{subject.tower.spec.name.replace('/', '_')}-{subject.method}"
    of = {
        "dataset": subject.dataset.name,
        "dataset_digest": subject.dataset.digest,
        "backbone": subject.tower.spec.name,
        "method": subject.method,
        "shots": shots,
        "seeds": subject.seeds,
        "fits": subject.keys,
        "value": value,
        "fill": fill,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"{stem}.json", {"verdict": said, **of, "shares": shares, "scenes": sharing.plain(rows)})
    heading = (
        f"{title} on {subject.dataset.name}, {shots_text(shots)}, {len(rows)} scenes, "
        f"seed{'s' if len(subject.seeds) > 1 else ''} {', '.join(map(str, subject.seeds))} "
        f"({subject.tower.spec.name})"
    )
    _print_shares(shares, sharing.MEASURES)
    save(figure.shares(shares, sharing.MEASURES, heading), out / f"{stem}.png")
    say.echo(said)


def _print_values(picture: Picture, name: str, values: Shapley, value: str) -> None:
    """Print a heading, and for each part what it adds to class ``name`` before and after the fit."""
    how = f"sampled, {values.orders} orders, +- standard error" if values.orders else "exact"
    say.echo(
        f"{picture.name}, {value} of {quoted([name])} ({how}): "
        f"with all parts, before {values.all[0]:.3f}, after {values.all[1]:.3f}; "
        f"with none, before {values.none[0]:.3f}, after {values.none[1]:.3f}"
    )
    for i, part in enumerate(picture.masks):
        said = [
            f"{word} {values.phi[i, v]:+.4f}" + (f" +- {values.se[i, v]:.4f}" if values.orders else "")
            for v, word in enumerate(("before", "after"))
        ]
        say.echo(f"  {part}: {', '.join(said)}")


def _print_shares(shares: Mapping[str, Mapping[str, Any]], measures: Mapping[str, str]) -> None:
    """Print one block per measure: a heading, then a line per group of parts."""
    for measure, groups in shares.items():
        say.echo(f"share of {measures[measure]}, %: before -> after, change [95 % interval]; area; scenes")
        for group, g in groups.items():
            c = g["change"]
            say.echo(
                f"  {group:<16}{100 * g['before']:6.1f} -> {100 * g['after']:5.1f}  "
                f"{100 * c['estimate']:+5.1f} [{100 * c['low']:+.1f}, {100 * c['high']:+.1f}]  "
                f"{100 * g['area']:5.1f}  {g['scenes']}"
            )
