"""The Typer application: verbs and sub-commands put together."""

from __future__ import annotations

import typer

from bench.cli.cache import app as cache
from bench.cli.check import check
from bench.cli.check_method import check_method
from bench.cli.cite import EXAMPLES as CITE
from bench.cli.cite import cite
from bench.cli.compare import compare
from bench.cli.convert import convert
from bench.cli.data import app as data
from bench.cli.explain import app as explain
from bench.cli.listing import app as listing
from bench.cli.merge import merge
from bench.cli.new import app as new
from bench.cli.once import Once
from bench.cli.options import examples
from bench.cli.pack import pack
from bench.cli.plot import plot
from bench.cli.records import records
from bench.cli.report import report
from bench.cli.run import run
from bench.cli.table import table
from bench.cli.weights import app as weights

app = typer.Typer(
    name="bench",
    cls=Once,
    help="Few-shot CLIP adaptation: every method under one leak-free protocol.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("run")(run)
app.command("table")(table)
app.command("compare")(compare)
app.command("pack")(pack)
app.command("convert")(convert)
app.command(
    "merge",
    epilog=examples(
        "bench merge laptop server --out both", "bench merge laptop server --out both --prefer server"
    ),
)(merge)
app.command("records", epilog=examples("bench records --verbose", "bench records --remove stale,orphaned"))(
    records
)
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
app.command("cite", epilog=CITE)(cite)
