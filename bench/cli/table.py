"""``bench table``: print the records as the paper's tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import complete, options
from bench.errors import BenchError

if TYPE_CHECKING:
    import pandas as pd


HARDEST = 30  # classes that table classes shows on a terminal


def table(
    which: Annotated[
        str,
        typer.Argument(
            help="1: accuracy by dataset, shots and method. 2: sizes of the datasets. 3: accuracy on shifted "
            "test sets. ablation: what changed settings change. classes: accuracy on each class of one "
            "dataset, and what it is taken for.",
            autocompletion=complete.tables,
        ),
    ] = "1",
    results: options.Folders = None,
    methods: options.Methods = None,
    datasets: options.DatasetsToo = None,
    shots: options.ShotNumbers = None,
    backbone: options.Backbone = None,
    prompts: options.Prompts = None,
    protocol: options.Protocol = None,
    preset: options.Preset = None,
    variants: Annotated[
        bool, typer.Option("--variants", help="Show rows with changed settings (--set) too.")
    ] = False,
    targets: Annotated[
        bool, typer.Option("--targets", help="In table ablation: show shifted test sets too.")
    ] = False,
    target: Annotated[
        str | None,
        typer.Option(
            help="In table classes: show this shifted test set of the dataset instead of its own.",
            autocompletion=complete.dataset,
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            help="In table classes: show this many classes, the hardest ones (default: 30 on a terminal, and "
            "all in other formats).",
            min=1,
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="In table ablation: the method or prompt set that changes are measured from.",
            autocompletion=complete.method,
        ),
    ] = None,
    metric: options.Metric = "top1",
    against: Annotated[
        str | None,
        typer.Option(
            help="Show published numbers beside ours: paper, or the name of another source.",
            autocompletion=complete.sources,
        ),
    ] = None,
    format: options.TableFormat = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Show averages over rows with missing cells too, and mark these."),
    ] = False,
    bold: Annotated[bool, typer.Option(help="Print the best of each column in bold.")] = True,
    underline: Annotated[
        bool,
        typer.Option(help="Underline numbers that the data cannot tell from the best of their column."),
    ] = True,
    data_root: Annotated[
        Path | None,
        typer.Option(
            envvar="BENCH_DATA",
            help="In table 2: count the images in this folder of datasets; otherwise sizes are as published. "
            "In table classes: read the class names there.",
        ),
    ] = None,
    out: options.TableFile = None,
) -> None:
    """Print a table of the recorded results, or write it to a file in one of six formats."""
    from bench.cli.show import form_of, show
    from bench.report import tables

    form = form_of(format, out)
    tables.check(which)
    if which != "classes" and (target is not None or top is not None):
        flag = "--target" if target is not None else "--top"
        raise BenchError(f"{flag} is for table classes, not for table {which}: leave it out")
    frame = with_titles(load(results, which))
    where = options.recorded(datasets, {*frame["dataset"], *frame["target"]})
    made = tables.table(
        frame,
        which,
        methods=options.names(methods),
        datasets=tuple(where),
        shots=options.numbers(shots, "--shots"),
        backbone=backbone,
        prompts=options.names(prompts),
        protocol=protocol,
        preset=preset,
        variants=variants,
        partial=partial,
        bold=bold,
        underline=underline,
        against=against,
        base=base,
        targets=shifts(frame) if which == "3" or targets else (),
        counts=sizes(where, frame, data_root) if which == "2" else None,
        metric=metric,
        target=target,
        top=HARDEST if top is None and form == "console" else top,
        written=where,
        data_root=data_root,
    )
    show(made, form, out)
    options.complete(frame)


def load(results: list[Path] | None, which: str) -> pd.DataFrame:
    """Return the records of the named folders; table 2 does without any."""
    from bench.records import store
    from bench.records.whole import Bad

    bad: list[Bad] = []
    known = (next(store.every(folder, bad), None) for folder in options.folders(results))
    if which == "2" and not any(known) and not bad:
        import pandas as pd

        from bench.report.frame import COLUMNS

        return pd.DataFrame(columns=list(COLUMNS))
    return options.records(results)


def with_titles(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with today's titles of the methods that the program knows; others keep theirs."""
    from bench.registry import builtin

    titles = {name: method.title for name, method in builtin().methods.items()}
    notes = dict(frame.attrs)
    frame = frame.assign(
        title=[titles.get(m, t) for m, t in zip(frame["method"], frame["title"], strict=True)]
    )
    frame.attrs.update(notes)
    return frame


def shifts(frame: pd.DataFrame) -> tuple[str, ...]:
    """Return the shifted test sets of the recorded datasets, in the catalog's order."""
    from bench.data import catalog

    known = set(catalog.names())
    return tuple(t for name in frame["dataset"].unique() if name in known for t in catalog.spec(name).targets)


def sizes(
    wanted: Mapping[str, str], frame: pd.DataFrame, data_root: Path | None
) -> dict[str, dict[str, int]]:
    """Return the numbers of classes and images by dataset.

    ``wanted``: datasets, each with the name or path that the user wrote (``options.recorded``); if empty,
    those of the paper and those with records. Sizes of the catalog's datasets are the published ones. With
    ``data_root`` they are counted there, and a dataset that is not there has none. A user's own datasets are
    always counted.
    """
    from bench.data import catalog, status
    from bench.report.paper import numbers

    named = dict(wanted)
    if not named:
        known = set(catalog.names())
        usual = [*numbers.sizes(), *(str(n) for n in frame["target"].unique() if n in known)]
        named = {name: name for name in usual}
    found = {}
    for name, written in named.items():
        described = catalog.describe(written)
        if data_root is None and described.base is None:
            found[described.name] = dict(described.counts)
        else:
            (row,) = status.status(data_root, [written])
            found[name if described.base else row.name] = dict(row.counts)
    return found
