"""Options that several verbs have, comma-separated ones, and places to write to.

In a list, a path that exists is a path before it is a list.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import say
from bench.errors import BenchError
from bench.names import told_apart
from bench.paths import from_home

if TYPE_CHECKING:
    import pandas as pd

Folders = Annotated[
    list[Path] | None,
    typer.Option(
        "--results",
        help="Folder that `bench run` wrote to, or a packed one (default: results); "
        "given again, the records of all.",
    ),
]


def examples(*commands: str) -> str:
    """Return the end of a verb's help: the given commands, each on a line of its own.

    Use it as ``app.command(epilog=examples("bench table 1 --shots 16"))``. Square brackets are escaped: the
    help is rich markup.
    """
    return "\n\n".join(("Examples:", *(command.replace("[", "\\[") for command in commands)))


def folders(given: list[Path] | None) -> list[Path]:
    """The results folders that were named, each once, or the usual one."""
    return list(dict.fromkeys(given or [Path("results")]))


def records(given: list[Path] | None) -> pd.DataFrame:
    """The frame of the results folders that were named, which stays until the program ends.

    What is not believed is said at once, and ``complete`` ends the verb with a code that says so.
    """
    import gc

    from bench.report.frame import load_results

    frame = load_results(folders(given))
    gc.freeze()  # Python need not look at it for garbage again and again
    if frame.attrs["bad"]:
        say.secho(f"bench: {frame.attrs['bad']}", err=True, fg="yellow")
    return frame


def complete(frame: pd.DataFrame) -> None:
    """The end of a verb that shows records: it is incomplete where some of them were not believed."""
    from bench.cli.codes import Code

    if frame.attrs.get("bad"):
        raise typer.Exit(Code.INCOMPLETE)


def names(text: str | None) -> tuple[str, ...]:
    """``a,b`` as names; nothing for None."""
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()


def datasets(text: str | None) -> tuple[str, ...]:
    """``a,b`` as datasets, some of which may be folders or files with commas in their names."""
    return _split(text, _there)


def backbones(text: str | None) -> tuple[str, ...]:
    """``a,b`` as backbones; the file of an ``ARCH@FILE`` may have commas in its name."""
    return _split(text, lambda name: "@" in name and _there(name.partition("@")[2]))


def _split(text: str | None, is_one: Callable[[str], bool]) -> tuple[str, ...]:
    """The names between commas; from the left, the longest piece that ``is_one`` thing stays whole."""
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
    """``a,b`` as datasets of records: what tables call each, and what was written, a name or a path.

    ``known``: the datasets that there are records of; those of one name are told apart there.
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
    """``1,16`` as whole numbers from 1 on. Raises BenchError naming the option."""
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
    """``out``, a file with one of these suffixes (``.png``; none: any), which the user named with ``flag``.

    Leaves nothing there. Raises BenchError for another suffix, for what is no file and for a place where this
    user cannot write.
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
    """Nothing, where files can be written in ``folder``, which may not be there yet; else BenchError.

    Leaves nothing there. ``named``: what the user named with ``flag``, where it is not the folder itself.
    ``reads``: it is read only, so that a folder that is there will do.
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
