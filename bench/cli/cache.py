"""``bench cache``: list the stored features, and delete some to make room."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import complete, say
from bench.cli.codes import Code
from bench.cli.options import examples
from bench.errors import BenchError
from bench.names import quoted

app = typer.Typer(
    help="List stored image features, or delete some to make room.",
    no_args_is_help=True,
    epilog=examples("bench cache list", "bench cache clear '*_dense_*'"),
)

CacheDir = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder of stored features (default: $BENCH_CACHE, else the user's cache)."),
]


@app.command("list", epilog=examples("bench cache list", "bench cache list --verify --format json"))
def list_(
    cache: CacheDir = None,
    format: Annotated[
        str, typer.Option(help="Format: text or json.", autocompletion=complete.text_formats)
    ] = "text",
    verify: Annotated[
        bool, typer.Option("--verify", help="First read every stored feature, and delete what is damaged.")
    ] = False,
) -> None:
    """List the stored feature sets: their names, numbers of images and sizes on disk."""
    if format not in ("text", "json"):
        raise BenchError(f"--format {format} is not known: write 'text' or 'json'")
    from bench.features.store import FeatureStore

    store = FeatureStore(cache, report=lambda line: say.echo(line, err=True))
    if verify:
        store.verify()
    sets = store.feature_sets()
    if format == "json":
        rows = [
            {
                "name": stored.folder.name,
                "key": vars(stored.key),
                "images": stored.rows(),
                "bytes": stored.bytes,
            }
            for stored in sets
        ]
        say.data(rows)
        return
    for stored in sets:
        say.echo(f"{_size(stored.bytes):>10}  {stored.rows():>8} images  {stored.folder.name}")
    say.echo(
        f"{_size(sum(stored.bytes for stored in sets)):>10}  in {store.root}, {_size(store.free())} free"
    )


@app.command(epilog=examples("bench cache clear", "bench cache clear '*_dense_*' --yes"))
def clear(
    pattern: Annotated[
        str,
        typer.Argument(help="Shell pattern of the names that `bench cache list` prints, as in '*_dense_*'."),
    ] = "*",
    cache: CacheDir = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
) -> None:
    """Delete the stored features that match a pattern; without one, all of them.

    `bench run` encodes them again when it needs them. Features that a running command uses stay.
    """
    from bench.features.store import FeatureStore

    store = FeatureStore(cache, report=lambda line: say.echo(line, err=True))
    sets = store.feature_sets(pattern)
    if not sets:
        say.echo(f"nothing in {store.root} matches '{pattern}'")
        return
    if not yes:
        total = _size(sum(stored.bytes for stored in sets))
        if not say.confirmed(f"Delete {len(sets)} feature sets ({total}) in {store.root}?"):
            say.echo("nothing was deleted")
            return
    cleared = store.clear(pattern)
    say.echo(f"freed {_size(cleared.freed)}")
    if not store.users.works:
        say.echo(
            f"{store.root} has no file locks: a run that was reading these stops, and goes on when repeated"
        )
    if cleared.left:
        names = quoted([stored.folder.name for stored in cleared.left], 3)
        say.echo(
            f"left {_size(sum(stored.bytes for stored in cleared.left))} that running commands use: {names}; "
            "the same command deletes them when those have ended"
        )
        raise typer.Exit(Code.INCOMPLETE)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
