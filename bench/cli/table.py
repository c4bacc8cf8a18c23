"""``bench table``: records as the paper's tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Folders

if TYPE_CHECKING:
    import pandas as pd


def table(
    which: Annotated[
        str,
        typer.Argument(
            help="1: dataset x shots x method; 2: sizes of the datasets; 3: shifted test sets; ablation."
        ),
    ] = "1",
    results: Folders = None,
    methods: Annotated[str | None, typer.Option(help="Only these, in this order; comma-separated.")] = None,
    datasets: Annotated[
        str | None, typer.Option(help="Only these, in this order; your own by name or path.")
    ] = None,
    shots: Annotated[str | None, typer.Option(help="Only these.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Needed when records of several are there.")] = None,
    prompts: Annotated[str | None, typer.Option(help="Only these prompt sets.")] = None,
    protocol: Annotated[str | None, typer.Option(help="Only this protocol.")] = None,
    preset: Annotated[str | None, typer.Option(help="Only this preset.")] = None,
    variants: Annotated[bool, typer.Option("--variants", help="Rows with changed settings too.")] = False,
    targets: Annotated[
        bool, typer.Option("--targets", help="Shifted test sets in the ablation too.")
    ] = False,
    base: Annotated[
        str | None, typer.Option(help="Method or prompt set that an ablation measures changes from.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Published numbers beside ours: paper, or another source.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="console, md, latex, csv, html or json (default: as --out ends, else console)."),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Show averages over incomplete rows, marked.")
    ] = False,
    bold: Annotated[bool, typer.Option(help="Mark the best of each column.")] = True,
    underline: Annotated[bool, typer.Option(help="Mark what is not told from the best.")] = True,
    data_root: Annotated[
        Path | None, typer.Option(envvar="BENCH_DATA", help="Table 2: count the datasets here.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write to a file instead of the terminal.")] = None,
) -> None:
    """Print a table of the recorded results."""
    from bench.cli.options import complete, names, numbers, recorded
    from bench.cli.show import form_of, show
    from bench.report import tables

    form = form_of(format, out)
    tables.check(which)
    frame = with_titles(load(results, which))
    where = recorded(datasets, {*frame["dataset"], *frame["target"]})
    made = tables.table(
        frame,
        which,
        methods=names(methods),
        datasets=tuple(where),
        shots=numbers(shots, "--shots"),
        backbone=backbone,
        prompts=names(prompts),
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
    )
    show(made, form, out)
    complete(frame)


def load(results: list[Path] | None, which: str) -> pd.DataFrame:
    """The records; table 2 does without any."""
    from bench.cli.options import folders, records
    from bench.records import store
    from bench.records.whole import Bad

    bad: list[Bad] = []
    known = (next(store.every(folder, bad), None) for folder in folders(results))
    if which == "2" and not any(known) and not bad:
        import pandas as pd

        from bench.report.frame import COLUMNS

        return pd.DataFrame(columns=list(COLUMNS))
    return records(results)


def with_titles(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the methods' titles, as far as the program knows the methods."""
    from bench.registry import builtin

    titles = {name: method.title for name, method in builtin().methods.items()}
    notes = dict(frame.attrs)
    frame = frame.assign(
        title=[titles.get(m, t) for m, t in zip(frame["method"], frame["title"], strict=True)]
    )
    frame.attrs.update(notes)
    return frame


def shifts(frame: pd.DataFrame) -> tuple[str, ...]:
    """The shifted test sets of the recorded sources, in the catalog's order."""
    from bench.data import catalog

    known = set(catalog.names())
    return tuple(t for name in frame["dataset"].unique() if name in known for t in catalog.spec(name).targets)


def sizes(
    wanted: Mapping[str, str], frame: pd.DataFrame, data_root: Path | None
) -> dict[str, dict[str, int]]:
    """Classes and images by dataset: of those ``wanted``, else of the paper's and of those with records.

    ``wanted``: what each was named by (``options.recorded``). The catalog's as described there; with a data
    root, as counted there, and nothing for a dataset that is not there. A user's own are counted.
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
