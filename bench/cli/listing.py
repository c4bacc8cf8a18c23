"""``bench list``: list methods and their settings, datasets, backbones, suites, metrics and prompt sets."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import complete, say
from bench.cli.options import examples
from bench.errors import BenchError
from bench.names import value_text

if TYPE_CHECKING:
    from bench.interface import Method
    from bench.registry import Registry

app = typer.Typer(
    help="List what there is to choose from.",
    no_args_is_help=True,
    epilog=examples("bench list methods", "bench list settings safe", "bench list datasets"),
)

Format = Annotated[
    str,
    typer.Option(
        "--format",
        help="Format: text, or json for a list of objects with a name.",
        autocompletion=complete.text_formats,
    ),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        help="A Python file with a method, as in my_probe.py. Give the option again for several files.",
    ),
]


def _print(rows: list[dict[str, Any]], form: str) -> None:
    """Print rows as JSON or as aligned text. Raises BenchError for another format."""
    if form == "json":
        say.data(rows)
        return
    _check_text(form)
    width = max((len(str(r["name"])) for r in rows), default=0)
    for row in rows:
        rest = "  ".join(str(v) for k, v in row.items() if k != "name" and v not in ("", None))
        say.echo(f"{row['name']:<{width}}  {rest}".rstrip())


def _check_text(form: str) -> None:
    if form != "text":
        raise BenchError(f"--format {form}: choose text or json")


@app.command(
    epilog=examples(
        "bench list methods",
        "bench list methods --format json",
        "bench list methods --verbose --methods safe --dataset digits --shots 4",
    )
)
def methods(
    format: Format = "text",
    plugin: Plugins = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print one screen per method: its recipe on one task.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(
            "--methods", help="List only these, as in safe,tip-adapter.", autocompletion=complete.methods
        ),
    ] = None,
    dataset: Annotated[
        str,
        typer.Option(help="With --verbose: the dataset of the task.", autocompletion=complete.dataset),
    ] = "emoji",
    shots: Annotated[int, typer.Option(help="With --verbose: the images per class of the task.", min=1)] = 16,
    backbone: Annotated[
        str,
        typer.Option(help="With --verbose: the backbone of the task.", autocompletion=complete.backbone),
    ] = "pocket-rn",
    preset: Annotated[
        str | None,
        typer.Option(
            help="With --verbose: paper or quick (default: quick on embedded backbones, else paper).",
            autocompletion=complete.presets,
        ),
    ] = None,
) -> None:
    """List the methods. A file that does not load is listed with the reason."""
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
    """Print the recipe of one method on one task, or why it cannot run there."""
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


@app.command(
    epilog=examples(
        "bench list settings tip-adapter",
        "bench list settings safe --format json",
        "bench list settings my-probe --plugin my_probe.py",
    )
)
def settings(
    method: Annotated[str, typer.Argument(help="The method, as in safe.", autocompletion=complete.method)],
    format: Format = "text",
    plugin: Plugins = None,
) -> None:
    """List the settings of a method: default, meaning, and whether a change fits the method again.

    Change a setting with `bench run --set METHOD.NAME=VALUE`.
    """
    from bench.cli import method_docs
    from bench.registry import with_plugins

    if "," in method:
        first = method.partition(",")[0].strip() or "safe"
        raise BenchError(f"{method}: one method at a time, as in `bench list settings {first}`")
    chosen = with_plugins(tuple(plugin or ())).get(method)
    if format == "json":
        say.data(method_docs.settings(chosen))
        return
    _check_text(format)
    for line in _settings_text(chosen, shutil.get_terminal_size((110, 24)).columns):
        say.echo(line)


_ITEM = re.compile(r"\([A-Z]\d+\)")  # as in "(A25)"
LONG = 20  # characters of a default that fit into its column


def _settings_text(method: Method, width: int) -> Iterator[str]:
    """Yield the lines of a table of a method's settings, wrapped to a width in characters.

    A long list of values, as in a grid, stands below the meaning; its column says how many there are.
    """
    from bench.cli import method_docs

    yield f"{method.name}: {method.title}" + (f" ({method.cite})" if method.cite else "")
    rows = [("setting", "default", "a change", ["meaning"])]
    for row in method_docs.settings(method):
        default, texts = value_text(row["default"]), [row["meaning"]]
        if isinstance(row["default"], tuple) and len(default) > LONG:
            texts.append(f"default: {default}")
            default = f"{len(row['default'])} values"
        change = "refits" if row["refits"] else "inference"
        rows.append((row["name"], default, change, [*texts, *method_docs.changes(row)]))
    if not rows[1:]:
        yield "no settings"
        return
    columns = [max(len(row[i]) for row in rows) for i in range(3)]
    start = sum(columns) + 6
    for *cells, texts in rows:
        begin = "  ".join(text.ljust(size) for text, size in zip(cells, columns, strict=True)) + "  "
        for line in [line for text in texts for line in textwrap.wrap(text, max(width - start, 30))] or [""]:
            yield (begin + line).rstrip()
            begin = " " * start
    yield from textwrap.wrap(
        "refits: another value is another fit. inference: the value acts on the fitted method, "
        "without a new fit.",
        max(width, 40),
    )
    if items := [item for *_, texts in rows for text in texts for item in _ITEM.findall(text)]:
        yield from textwrap.wrap(
            f"{items[0]} and the like: docs/protocol/ in the program's repository has these items.",
            max(width, 40),
        )


@app.command(epilog=examples("bench list datasets", "bench list datasets --format json"))
def datasets(format: Format = "text") -> None:
    """List the datasets with their kind and number of classes; json also has image counts and licences."""
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


@app.command(epilog=examples("bench list backbones"))
def backbones(format: Format = "text") -> None:
    """List the backbones with embedded or downloadable weights, and whether the weights are here."""
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


@app.command(epilog=examples("bench list suites"))
def suites(format: Format = "text") -> None:
    """List the suites, which name what `bench run --suite` measures."""
    from bench import suite

    _print([{"name": s.name, "title": s.title} for s in map(suite.load, suite.names())], format)


@app.command(epilog=examples("bench list metrics", "bench list metrics --format json"))
def metrics(format: Format = "text") -> None:
    """List the metrics of tables and comparisons (--metric), with their unit and which numbers are better."""
    from bench.metrics import METRICS

    rows = [
        {
            "name": metric.name,
            "unit": metric.unit,
            "better": "lower" if metric.lower_is_better else "higher",
            "title": metric.title,
            "convention": metric.convention,
        }
        for metric in METRICS.values()
    ]
    if format == "text":
        rows = [
            {
                "name": row["name"],
                "unit": f"{row['unit']:<4}  {row['better']} is better".ljust(22),
                "title": row["title"],
            }
            for row in rows
        ]
    _print(rows, format)


@app.command(epilog=examples("bench list prompts"))
def prompts(format: Format = "text") -> None:
    """List the prompt sets, which say how class names become text."""
    from bench.prompts import SETS

    _print([{"name": name, "what": what} for name, (what, _) in SETS.items()], format)
