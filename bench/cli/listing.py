"""``bench list``: methods, datasets, backbones, suites and prompt sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import say

if TYPE_CHECKING:
    from bench.registry import Registry

app = typer.Typer(help="What there is to choose from.", no_args_is_help=True)

Format = Annotated[str, typer.Option("--format", help="text or json (a list of objects with a name).")]


def _print(rows: list[dict[str, Any]], form: str) -> None:
    from bench.errors import BenchError

    if form == "json":
        say.data(rows)
    elif form == "text":
        width = max((len(str(r["name"])) for r in rows), default=0)
        for row in rows:
            rest = "  ".join(str(v) for k, v in row.items() if k != "name" and v not in ("", None))
            say.echo(f"{row['name']:<{width}}  {rest}".rstrip())
    else:
        raise BenchError(f"--format {form}: choose text or json")


@app.command()
def methods(
    format: Format = "text",
    plugin: Annotated[
        list[Path] | None, typer.Option(help="A Python file with a method; may be repeated.")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="One screen per method: its recipe on one task.")
    ] = False,
    only: Annotated[str | None, typer.Option("--methods", help="Only these, comma-separated.")] = None,
    dataset: Annotated[str, typer.Option(help="With --verbose: the task's dataset.")] = "emoji",
    shots: Annotated[int, typer.Option(help="With --verbose: the task's shots.", min=1)] = 16,
    backbone: Annotated[str, typer.Option(help="With --verbose: the task's backbone.")] = "pocket-rn",
    preset: Annotated[
        str | None, typer.Option(help="With --verbose: paper or quick (default: by backbone).")
    ] = None,
) -> None:
    """Methods by name; a file that does not load is listed with its reason."""
    from bench.cli.options import names
    from bench.registry import with_plugins

    registry = with_plugins(tuple(plugin or ()))
    chosen = [registry.get(name).name for name in names(only)]
    if verbose:
        for name in chosen or registry.names():
            _recipe(registry, name, dataset, shots, backbone, preset)
        return
    rows = [
        {"name": m.name, "title": m.title, "cite": m.cite, "towers": ",".join(m.towers), "note": m.note}
        for m in sorted(registry.methods.values(), key=lambda m: m.name)
        if not chosen or m.name in chosen
    ]
    rows += [{"name": b.name, "broken": b.reason} for b in registry.broken if not chosen]
    _print(rows, format)


def _recipe(
    registry: Registry, name: str, dataset: str, shots: int, backbone: str, preset: str | None
) -> None:
    from bench.plan import planner
    from bench.plan.request import Request
    from bench.run import describe
    from bench.run.session import Session

    request = Request((name,), (dataset,), (shots,), (1,), (backbone,), preset=preset)
    made = planner.make(request, registry)
    asked = [fit for fit in made.fits if fit.asked]
    for line in (
        describe.lines(asked[-1], Session("cpu", None, say.echo))
        if asked
        else (f"{name}: {made.blocked[0].reason}",)
    ):
        say.echo(line)
    say.echo("")


@app.command()
def datasets(format: Format = "text") -> None:
    """Datasets by name, with their kind and counts."""
    from bench.data import catalog

    rows = []
    for name in catalog.names():
        spec = catalog.spec(name)
        counts = spec.counts
        rows.append(
            {
                "name": spec.name,
                "kind": spec.kind,
                "title": spec.title,
                "classes": counts.get("classes"),
                "train": counts.get("train"),
                "val": counts.get("val"),
                "test": counts.get("test"),
                "licence": spec.licence,
            }
        )
    if format == "text":
        rows = [
            {
                "name": r["name"],
                "kind": f"{r['kind']:<16}",
                "title": r["title"],
                "classes": f"({r['classes']} classes)",
            }
            for r in rows
        ]
    _print(rows, format)


@app.command()
def backbones(format: Format = "text") -> None:
    """Backbones with embedded or downloadable weights, and whether they are here."""
    from bench.clip.spec import POCKET, resolve
    from bench.errors import MissingWeights

    rows = []
    for name in (*POCKET, "RN50", "ViT-B-16"):
        try:
            spec = resolve(name)
            rows.append(
                {"name": name, "family": spec.family, "image_size": f"{spec.image_size} px", "here": "here"}
            )
        except MissingWeights as error:
            rows.append({"name": name, "here": f"missing: {error}"})
    _print(rows, format)


@app.command()
def suites(format: Format = "text") -> None:
    """Suites by name."""
    from bench import suite

    _print([{"name": s.name, "title": s.title} for s in map(suite.load, suite.names())], format)


@app.command()
def prompts(format: Format = "text") -> None:
    """Prompt sets by name."""
    from bench.prompts import SETS

    _print([{"name": name, "what": what} for name, (what, _) in SETS.items()], format)
