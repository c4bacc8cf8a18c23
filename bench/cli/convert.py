"""``bench convert``: convert records of an older schema to today's, without fitting again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import say
from bench.names import counted


def convert(
    results: Annotated[Path, typer.Option(help="Folder that `bench run` or `bench pack` wrote.")] = Path(
        "results"
    ),
) -> None:
    """Bring records of an older version of the program to today's form.

    Nothing is run again, and no number changes.
    """
    from bench.records.upgrade import upgrade

    done = upgrade(results)
    say.echo(
        f"{counted(done.records, 'record')} converted in {results}"
        if done.records
        else f"{results}: nothing to convert"
    )
    for what, count in sorted(done.unmatched.items()):
        say.echo(f"  {count} {what}: tables read them, and a run makes them again")
