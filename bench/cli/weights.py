"""``bench weights``: show which backbones are on this machine, and download one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli import complete, say
from bench.cli.options import examples

app = typer.Typer(
    help="Show which weights of backbones are on this machine, or download some.",
    no_args_is_help=True,
    epilog=examples("bench weights status", "bench weights get RN50"),
)

USUAL = ("pocket-rn", "pocket-vit", "RN50", "ViT-B-16")  # shown even when they are missing


class Format(StrEnum):
    """The format in which a verb prints its result."""

    text = "text"
    json = "json"


@app.command(epilog=examples("bench weights status", "bench weights status --format json"))
def status(format: Annotated[Format, typer.Option(help="Format: text or json.")] = Format.text) -> None:
    """Show which weights are on this machine, and in which folder."""
    from bench.clip import weights

    rows = [_row(name) for name in dict.fromkeys([*USUAL, *weights.stored_names()])]
    if format is Format.json:
        say.data(rows)
        return
    say.echo(f"weights folder: {weights.folder()}")
    for row in rows:
        if row["state"] == "found":
            say.echo(
                f"{row['name']:<24} found    {row['megabytes']:8.1f} MB  {row['sha256'][:12]}  {row['file']}"
            )
        else:
            say.echo(f"{row['name']:<24} missing  {row['note']}")


def _row(name: str) -> dict[str, Any]:
    from bench.clip.backbone import resolve
    from bench.errors import BenchError

    try:
        spec = resolve(name, allow_torchscript=True)  # looking at a file runs nothing
    except BenchError as error:
        return {"name": name, "state": "missing", "note": str(error)}
    size = Path(spec.file).stat().st_size / 1e6
    return {
        "name": name,
        "state": "found",
        "file": str(spec.file),
        "megabytes": size,
        "sha256": spec.weights_hash,
    }


@app.command(epilog=examples("bench weights get RN50", "bench weights get ViT-B-32/laion2b_s34b_b79k"))
def get(
    name: Annotated[
        str,
        typer.Argument(
            help="ARCH for OpenAI's weights, as in RN50, or ARCH/TAG as open_clip names them, as in "
            "ViT-B-32/laion2b_s34b_b79k.",
            autocompletion=complete.backbone,
        ),
    ],
) -> None:
    """Download the weights of a backbone. No other verb downloads anything."""
    from bench.clip.spec import POCKET
    from bench.names import canonical

    if canonical(name) in POCKET:
        say.echo(f"{canonical(name)} comes with the program; there is nothing to get")
        return
    from bench.clip.download import fetch

    say.echo(f"{name}: {fetch(name)}")
