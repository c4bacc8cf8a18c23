"""``bench import``: record predictions of a method that lives elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import complete, options, say
from bench.errors import BenchError
from bench.names import PROTOCOLS, RECIPE, counted


def import_(
    dataset: Annotated[
        str,
        typer.Option(
            help="The dataset that the method learned from: a name, a folder of images or a TOML file.",
            autocompletion=complete.dataset,
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Argument(help="CSV file with a line per test image. Its first line names the columns."),
    ] = None,
    name: Annotated[
        str, typer.Option(help="Name of the method in tables, as in mine.", show_default=False)
    ] = "",
    shots: Annotated[
        int | None,
        typer.Option(
            help="Training images per class; 0 for a method that used none.", min=0, show_default=False
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of the draw, as in `bench data draw --seed`. With --shots 0 there is none.",
            min=0,
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="The test set, where it is another one, as in a table of shifted test sets (default: the "
            "dataset's own).",
            autocompletion=complete.dataset,
            show_default=False,
        ),
    ] = "",
    backbone: Annotated[
        str,
        typer.Option(
            help="The CLIP that the method adapts, as in RN50. Tables compare it with rows of that backbone.",
            autocompletion=complete.backbone,
        ),
    ] = "pocket-rn",
    protocol: Annotated[
        str,
        typer.Option(
            help=f"What chose its hyper-parameters: {', '.join(PROTOCOLS[:-1])} or {PROTOCOLS[-1]}.",
            autocompletion=complete.protocols,
        ),
    ] = RECIPE,
    preset: Annotated[
        str,
        typer.Option(
            help="The budget of training, paper or quick (default: quick for the embedded backbones, else "
            "paper).",
            autocompletion=complete.presets,
            show_default=False,
        ),
    ] = "",
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Delete the record of other predictions of the same cell."),
    ] = False,
    template: Annotated[
        Path | None,
        typer.Option(
            help="Write this CSV file to fill in, and import nothing. It has the columns and a line for each "
            "test image. Besides, only --dataset is needed.",
            show_default=False,
        ),
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder of the records.")] = Path("results"),
    data_root: Annotated[
        Path | None,
        typer.Option("--data-root", help="Folder that holds the datasets' folders.", show_default=False),
    ] = None,
) -> None:
    """Record the predictions of a method that lives elsewhere, so that it gets a row in every table.

    Columns: image (a path as the dataset lists it), predicted (a class by name or number) and, if there are
    probabilities, p_CLASS for each class. Every line is checked before anything is written.
    """
    from bench.imported.outputs import LEAST
    from bench.imported.records import Asked, bring
    from bench.registry import builtin

    if template is not None:
        if file is not None:
            raise BenchError(
                f"--template writes a file to fill in: leave {file} out, or leave the option out"
            )
        write_template(template, dataset, target, results, data_root)
        return
    lacking = {"FILE": file is None, "--name": not name, "--shots": shots is None}
    lacking["--seed"] = seed is None and shots != 0
    if any(lacking.values()) or file is None or shots is None:
        raise BenchError(
            f"missing: {', '.join(flag for flag, lacks in lacking.items() if lacks)}. Write them as in "
            "`bench import mine.csv --name mine --dataset digits --shots 4 --seed 1`"
        )
    options.writable_folder(results, "--results")
    asked = Asked(name, dataset, shots, seed or 0, backbone, target, protocol, preset)
    done = bring(file, asked, results, builtin().names(), data_root, replaces=replace)
    what = f"{name}: {100 * done.top1:.2f} % of {counted(done.n, 'test image')}"
    say.echo(f"{what}, {'written to' if done.new else 'recorded before in'} {done.path}")
    if done.replaced:
        many = counted(len(done.replaced), "record")
        say.echo(f"replaced: {many} of other predictions of the same cell, which are deleted")
    if done.packed:
        many = counted(done.packed, "packed record stays", "packed records stay")
        say.echo(f"{many}, of other predictions of the same cell; this one counts")
    if done.floored:
        many = counted(done.floored, "image")
        say.echo(
            f"note: the true class of {many} has a probability below {LEAST:g}, which counts as {LEAST:g} in "
            "likelihoods"
        )


def write_template(file: Path, dataset: str, target: str, results: Path, data_root: Path | None) -> None:
    """Write a file to fill in for the test images of a dataset, or of ``target``, and say how."""
    from bench.imported import template
    from bench.imported.records import datasets

    options.writable(file, flag="--template")
    _, test = datasets(dataset, target, results, data_root)
    template.write(file, test)
    say.echo(
        f"{file}: {counted(len(test.test), 'test image')} of {test.name}. Write a class beside each "
        "('predicted'), or probabilities; delete the columns 'p_...' if there are none."
    )
