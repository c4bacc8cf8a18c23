"""Options that several verbs have, comma-separated ones, and places to write to.

In a list, a path that exists is a path before it is a list.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import BenchError
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


def folders(given: list[Path] | None) -> list[Path]:
    """The results folders that were named, each once, or the usual one."""
    return list(dict.fromkeys(given or [Path("results")]))


def records(given: list[Path] | None) -> pd.DataFrame:
    """The frame of the results folders that were named, which stays until the program ends."""
    import gc

    from bench.report.frame import load_results

    frame = load_results(folders(given))
    gc.freeze()  # Python need not look at it for garbage again and again
    return frame


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


def writable(out: Path, suffixes: Sequence[str]) -> Path:
    """``out``, a file with one of these suffixes (``.png``).

    Raises BenchError for another suffix, a folder, and a place where this user cannot write.
    """
    if out.suffix.lower() not in suffixes:
        others = " or ".join(str(out.with_suffix(suffix)) for suffix in suffixes)
        ending = f"'{out.suffix}' is no format of figures" if out.suffix else "no ending"
        raise BenchError(f"--out {out}: {ending}; name it {others}")
    if out.is_dir():
        raise BenchError(f"--out {out}: is a folder; name a file")
    writable_folder(out.parent, out)
    return out


def writable_folder(folder: Path, out: Path | None = None) -> None:
    """Nothing, where files can be written in ``folder``, which may not be there yet; else BenchError.

    ``out``: what the user named, where it is not the folder itself.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise BenchError(f"--out {out or folder}: {there} is not a folder")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise BenchError(
            f"--out {out or folder}: cannot write in {there} ({error.strerror}); choose another place"
        ) from error
