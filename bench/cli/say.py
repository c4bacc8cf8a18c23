"""What a verb says: the one way to standard output and error, on which no name steers the terminal.

Texts hold the names of files, classes and methods, and errors that quote them. Here everything that is not
printable becomes an escape (``bench.names``), line breaks aside, and square brackets mean nothing.
``bench.cli.streams`` does the same to what libraries write.
"""

from __future__ import annotations

import json
from typing import Any

import typer

from bench.names import in_json, shown


def echo(text: object = "", err: bool = False, nl: bool = True) -> None:
    """A line, or several; ``nl``: whether a line break follows."""
    typer.echo(shown(str(text), keep="\n"), err=err, nl=nl)


def secho(text: object, fg: str, err: bool = False) -> None:
    """A line, or several, in a colour where that is a terminal."""
    typer.secho(shown(str(text), keep="\n"), fg=fg, err=err)


def made(text: str) -> None:
    """A text that is harmless already, and may be styled: what ``bench.report.render`` made of a table."""
    typer.echo(text, nl=False)


def data(value: Any, indent: int = 1) -> None:
    """JSON, whose strings keep their content: what is not printable is written as JSON's own escapes."""
    typer.echo(in_json(json.dumps(value, indent=indent, ensure_ascii=False)))
