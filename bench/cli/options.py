"""Options that several verbs have, and comma-separated ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import BenchError

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


def numbers(text: str | None, option: str) -> tuple[int, ...]:
    """``1,16`` as whole numbers from 1 on. Raises BenchError naming the option."""
    try:
        values = tuple(int(part) for part in names(text))
    except ValueError as error:
        raise BenchError(f"{option} {text}: write whole numbers with commas, as in {option} 1,16") from error
    if any(n < 1 for n in values):
        raise BenchError(f"{option} {text}: numbers start at 1")
    return values
