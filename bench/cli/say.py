"""Print what a verb has to say, and ask the user before it deletes; verbs print and ask in no other way.

Texts hold names of files, classes and methods, and such a name must not steer the terminal. Everything that
is not printable therefore becomes an escape here (``bench.names``), except line breaks, and square brackets
have no meaning. ``bench.cli.streams`` does the same to what libraries write.
"""

from __future__ import annotations

import json
from typing import Any

import typer

from bench.errors import BenchError
from bench.names import in_json, shown


def echo(text: object = "", err: bool = False, nl: bool = True) -> None:
    """Print one or more lines. ``err``: to standard error. ``nl``: end with a line break."""
    typer.echo(shown(str(text), keep="\n"), err=err, nl=nl)


def secho(text: object, fg: str, err: bool = False) -> None:
    """Print one or more lines, on a terminal in the colour ``fg``. ``err``: to standard error."""
    typer.secho(shown(str(text), keep="\n"), fg=fg, err=err)


def made(text: str) -> None:
    """Print a text that is harmless already and may have styles, as ``bench.report.render`` makes tables."""
    typer.echo(text, nl=False)


def data(value: Any, indent: int = 1) -> None:
    """Print JSON. Strings keep their content: what is not printable is written as an escape of JSON."""
    typer.echo(in_json(json.dumps(value, indent=indent, ensure_ascii=False)))


def confirmed(question: str) -> bool:
    """Ask the user whether to delete something, and return whether the answer is yes.

    Raises BenchError if nobody answers, as where standard input is no terminal, and KeyboardInterrupt on
    Ctrl-C.
    """
    try:
        return typer.confirm(shown(question))
    except typer.Abort as error:  # what click raises instead of the two errors that it catches
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise BenchError("nobody answered: add --yes to delete without asking") from error
