"""The command line: one file per verb, thin; torch is imported only inside a verb."""

from __future__ import annotations


def main() -> None:
    """Entry point of the command ``bench``: user errors are one line and exit code 2."""
    import sys

    import typer

    from bench.cli.app import app
    from bench.errors import BenchError

    try:
        app()
    except BenchError as error:
        typer.secho(f"bench: {error}", err=True, fg="red")
        sys.exit(2)
