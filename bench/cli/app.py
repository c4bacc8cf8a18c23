"""The Typer application: verbs and sub-commands put together."""

from __future__ import annotations

import typer

from bench.cli import (
    cache,
    check,
    check_method,
    compare,
    convert,
    data,
    explain,
    listing,
    new,
    pack,
    plot,
    report,
    run,
    table,
    weights,
)

app = typer.Typer(
    name="bench",
    help="Few-shot CLIP adaptation: every method under one leak-free protocol.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("run")(run.run)
app.command("table")(table.table)
app.command("compare")(compare.compare)
app.command("pack")(pack.pack)
app.command("convert")(convert.convert)
app.command("plot")(plot.plot)
app.command("report")(report.report)
app.command("check")(check.check)
app.command("check-method")(check_method.check_method)
app.add_typer(listing.app, name="list")
app.add_typer(data.app, name="data")
app.add_typer(explain.app, name="explain")
app.add_typer(new.app, name="new")
app.add_typer(weights.app, name="weights")
app.add_typer(cache.app, name="cache")
