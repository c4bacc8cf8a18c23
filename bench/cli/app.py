"""The Typer application, which puts the verbs and their sub-verbs together."""

from __future__ import annotations

import platform
from typing import Annotated

import typer

from bench.cli import say
from bench.cli.cache import app as cache
from bench.cli.check import check
from bench.cli.check_method import check_method
from bench.cli.compare import compare
from bench.cli.convert import convert
from bench.cli.data import app as data
from bench.cli.explain import app as explain
from bench.cli.listing import app as listing
from bench.cli.new import app as new
from bench.cli.options import examples
from bench.cli.pack import pack
from bench.cli.plot import plot
from bench.cli.report import report
from bench.cli.run import run
from bench.cli.table import table
from bench.cli.usage import Verbs
from bench.cli.weights import app as weights

app = typer.Typer(
    name="bench",
    cls=Verbs,
    help="Measure few-shot adaptation of CLIP: every method under one protocol that leaks no test data.",
    epilog=examples(
        "bench run --methods zero-shot,tip-adapter --datasets digits",
        "bench table",
        "bench run --help",
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    """Print the version and exit. torch is not imported: its installed files say their version."""
    if not asked:
        return
    from importlib.metadata import PackageNotFoundError, version

    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    say.echo(f"bench {of('fewshot-clip-bench')}")
    say.echo(f"Python {platform.python_version()}, torch {of('torch')}")
    raise typer.Exit


@app.callback()
def bench(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            help="Print the versions of bench, Python and torch, and exit.",
        ),
    ] = False,
) -> None:
    """Take the options that stand before the verb."""


app.command("run")(run)
app.command("table")(table)
app.command("compare")(compare)
app.command("pack")(pack)
app.command("convert")(convert)
app.command("plot")(plot)
app.command("report")(report)
app.command("check")(check)
app.command("check-method")(check_method)
app.add_typer(listing, name="list")
app.add_typer(data, name="data")
app.add_typer(explain, name="explain")
app.add_typer(new, name="new")
app.add_typer(weights, name="weights")
app.add_typer(cache, name="cache")
