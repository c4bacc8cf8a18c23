"""This module holds what several verbs share: options, comma-separated values, and places to write to.

A comma may be part of a path. Where a piece of a list with commas is a path that exists, it stays whole.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import complete as complete_names
from bench.cli import say
from bench.errors import BenchError
from bench.names import PROTOCOLS, RECIPE, told_apart
from bench.paths import from_home

if TYPE_CHECKING:
    import pandas as pd

Folders = Annotated[
    list[Path] | None,
    typer.Option(
        "--results",
        help="Read the records of this folder, which `bench run` or `bench pack` wrote (default: results). "
        "Give the option again to read several folders as one.",
    ),
]
Methods = Annotated[
    str | None,
    typer.Option(
        help="Show only these methods, in this order, as in safe,tip-adapter.",
        autocompletion=complete_names.methods,
    ),
]
Datasets = Annotated[
    str | None,
    typer.Option(
        help="Show only these datasets, in this order, as in digits,emoji; your own by name or path.",
        autocompletion=complete_names.datasets,
    ),
]
DatasetsToo = Annotated[  # where one dataset is often meant, so that both spellings are typed
    str | None,
    typer.Option(
        "--datasets",
        "--dataset",
        help="Show only these datasets, in this order, as in digits,emoji; your own by name or path.",
        autocompletion=complete_names.datasets,
    ),
]
ShotNumbers = Annotated[
    str | None, typer.Option(help="Show only these numbers of images per class, as in 1,16.")
]
Backbone = Annotated[
    str | None,
    typer.Option(
        help="Show only this backbone. Needed where the folder has records of several.",
        autocompletion=complete_names.backbone,
    ),
]
CellPrompts = Annotated[
    str | None,
    typer.Option(
        help="Prompt set of the cell. Needed where the method was run with several.",
        autocompletion=complete_names.prompts,
    ),
]
Prompts = Annotated[
    str | None,
    typer.Option(help="Show only these prompt sets, as in hand,cupl.", autocompletion=complete_names.prompts),
]
Protocol = Annotated[
    str | None,
    typer.Option(
        help=f"Show only this protocol: {', '.join(PROTOCOLS[:-1])} or {PROTOCOLS[-1]}.",
        autocompletion=complete_names.protocols,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Show only this preset: paper or quick.",
        autocompletion=complete_names.presets,
    ),
]
OneProtocol = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        help=f"Show this protocol: {', '.join(PROTOCOLS[:-1])} or {PROTOCOLS[-1]} (default: {RECIPE}).",
        autocompletion=complete_names.protocols,
    ),
]
OnePreset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="Show this preset: paper or quick. Needed where the folder has records of several.",
        autocompletion=complete_names.presets,
    ),
]
Metric = Annotated[
    str,
    typer.Option(
        "--metric",
        help="What the numbers are: top1 (accuracy), top5, balanced, macro-f1, nll, nll-after, brier, "
        "brier-after, ece (expected calibration error), ece-after, ece-cal, ece-mass or aurc. `bench list "
        "metrics` explains them, and docs/metrics.md defines them.",
        autocompletion=complete_names.metrics,
    ),
]
TableFormat = Annotated[
    str | None,
    typer.Option(
        help="Format: console, md, latex, csv, html or json (default: by the ending of --out, else console).",
        autocompletion=complete_names.table_formats,
    ),
]
TableFile = Annotated[
    Path | None, typer.Option("--out", help="Write to this file instead of the terminal, as in table.md.")
]


def examples(*commands: str) -> str:
    """Return the end of a verb's help: the given commands, each on a line of its own.

    Use it as ``app.command(epilog=examples("bench table 1 --shots 16"))``. A command has at most 78
    characters, so that a terminal of 80 columns shows it on one line. Square brackets are escaped, because
    the help is rich markup.
    """
    return "\n\n".join(("Examples:", *(command.replace("[", "\\[") for command in commands)))


def folders(given: list[Path] | None) -> list[Path]:
    """Return the named results folders, each once; without any, ``results``."""
    return list(dict.fromkeys(given or [Path("results")]))


def records(given: list[Path] | None) -> pd.DataFrame:
    """Return the records of the named results folders as one frame.

    Damaged or incomplete records are left out and named at once; call ``complete`` at the verb's end, so
    that its exit code says so too. The frame stays in memory until the program ends.
    """
    import gc

    from bench.report.frame import load_results

    frame = load_results(folders(given))
    gc.freeze()  # the frame stays, so the garbage collector need not visit it again and again
    if frame.attrs["bad"]:
        say.secho(f"bench: {frame.attrs['bad']}", err=True, fg="yellow")
    return frame


def complete(frame: pd.DataFrame) -> None:
    """End a verb that shows records: exit with INCOMPLETE if damaged ones were left out."""
    from bench.cli.codes import Code

    if frame.attrs.get("bad"):
        raise typer.Exit(Code.INCOMPLETE)


def names(text: str | None) -> tuple[str, ...]:
    """Return the names of ``a,b``; none for None."""
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()


def datasets(text: str | None) -> tuple[str, ...]:
    """Return the datasets of ``a,b``; a folder or file that exists may have commas in its name."""
    return _split(text, _there)


def backbones(text: str | None) -> tuple[str, ...]:
    """Return the backbones of ``a,b``; the file of an ``ARCH@FILE`` may have commas in its name."""
    return _split(text, lambda name: "@" in name and _there(name.partition("@")[2]))


def _split(text: str | None, is_one: Callable[[str], bool]) -> tuple[str, ...]:
    """Return the names between commas.

    From the left, the longest piece for which ``is_one`` is true stays whole. Example: of ``a,b,digits``,
    where a folder ``a,b`` exists, the names are ``a,b`` and ``digits``.
    """
    pieces = text.split(",") if text else []
    found = []
    while pieces:
        whole = (n for n in range(len(pieces), 1, -1) if is_one(",".join(pieces[:n]).strip()))
        count = next(whole, 1)
        found.append(",".join(pieces[:count]).strip())
        del pieces[:count]
    return tuple(filter(None, found))


def _there(path: str) -> bool:
    return os.path.exists(from_home(path))


def recorded(text: str | None, known: Collection[str]) -> dict[str, str]:
    """Return the datasets of ``a,b`` as tables name them, each with the name or path that was written.

    ``known``: the datasets in the records. Two datasets of one name bear a suffix there, as in
    ``birds-4f1c2a``; a path then means the one that lies there.
    """
    from bench.data import catalog

    def name_of(written: str) -> str:
        if not _there(written):
            return written
        described = catalog.describe(written)
        apart = told_apart(described.name, described.identity)
        return apart if apart in known else described.name

    return {name_of(written): written for written in datasets(text)}


def numbers(text: str | None, option: str) -> tuple[int, ...]:
    """Return the whole numbers of ``1,16``. Raises BenchError if one is below 1 or no whole number."""
    try:
        values = tuple(int(part) for part in names(text))
    except ValueError as error:
        raise BenchError(
            f"{option} {text}: write whole numbers with commas, no ranges, as in {option} 1,2,3"
        ) from error
    if any(n < 1 for n in values):
        raise BenchError(f"{option} {text}: numbers start at 1")
    return values


def writable(out: Path, suffixes: Sequence[str] = (), flag: str = "--out") -> Path:
    """Return ``out``, after checking that it can be written; the user named it with ``flag``.

    ``suffixes``: the allowed endings, as in ``.png``; empty allows any. The check leaves no file behind.
    Raises BenchError for another ending, for a folder or device, and for a place that is not writable.
    """
    if suffixes and out.suffix.lower() not in suffixes:
        others = " or ".join(str(out.with_suffix(suffix)) for suffix in suffixes)
        ending = f"ends in '{out.suffix}'" if out.suffix else "has no ending"
        raise BenchError(f"{flag} {out}: {ending}; name it {others}")
    if out.is_dir():
        raise BenchError(f"{flag} {out}: is a folder; name a file")
    if out.exists() and not out.is_file():
        raise BenchError(f"{flag} {out}: is no file that could be replaced; name another")
    writable_folder(out.parent, flag, out)
    return out


def writable_folder(
    folder: Path, flag: str = "--out", named: Path | None = None, reads: bool = False
) -> None:
    """Check that files can be written in ``folder``, which need not exist yet; leave nothing behind.

    ``named``: what the user wrote after ``flag``, if that is not the folder itself. ``reads``: the verb only
    reads, so any folder that exists will do. Raises BenchError where files cannot be written.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        what = "" if there == folder else f"{there} "
        raise BenchError(f"{flag} {named or folder}: {what}is not a folder; choose another place")
    if reads and there == folder:
        return
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise BenchError(
            f"{flag} {named or folder}: cannot write in {there} ({error.strerror}); choose another place"
        ) from error
