"""``bench --version``: print the versions of what computes."""

from __future__ import annotations

import platform

import typer

from bench.cli import say


def version(asked: bool) -> None:
    """Print the version and exit. torch is not imported: its installed files say their version."""
    if not asked:
        return
    from importlib import metadata

    def of(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "not installed"

    say.echo(f"bench {of('fewshot-clip-bench')}")
    say.echo(f"Python {platform.python_version()}, torch {of('torch')}")
    raise typer.Exit
