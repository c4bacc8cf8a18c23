"""``bench explain``: what the model looks at, before and after a fit."""

from __future__ import annotations

import typer

from bench.cli.explain_maps import correspond, maps
from bench.cli.explain_parts import shapley, share

app = typer.Typer(help="What the model looks at, before and after a fit.", no_args_is_help=True)
app.command()(correspond)
app.command()(maps)
app.command()(shapley)
app.command()(share)
