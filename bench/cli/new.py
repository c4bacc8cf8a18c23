"""``bench new``: begin a method of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import say

app = typer.Typer(help="Begin something of your own.", no_args_is_help=True)


@app.callback()
def new() -> None:
    """Begin something of your own."""


@app.command()
def method(
    name: Annotated[str, typer.Argument(help="The method's name, as in my-probe.")],
    folder: Annotated[
        Path, typer.Option(help="Where to write; in a checkout: methods/ and tests/methods/.")
    ] = Path("."),
) -> None:
    """Write a method that works as it is, and its test."""
    from bench.contract import starter

    file, test = starter.write(name, folder)
    say.echo(f"wrote {file} and {test}")
    called = file.stem.replace("_", "-")
    plugin = "" if file.parent.name == "methods" and test.parent != file.parent else f"--plugin {file} "
    say.echo(f"check it:  bench check-method {file if plugin else called}")
    say.echo(f"run it:    bench run {plugin}--methods zero-shot,{called} --shots 16")
