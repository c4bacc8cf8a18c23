"""``bench explain``: show what the model looks at, before and after a fit."""

from __future__ import annotations

import typer

from bench.cli.explain_maps import correspond, maps
from bench.cli.explain_parts import shapley, share
from bench.cli.options import examples

app = typer.Typer(
    help="Show what the model looks at, before and after a fit.",
    no_args_is_help=True,
    epilog=examples("bench explain maps mammals:3", "bench explain shapley mammals:3 --method safe"),
)
app.command(
    epilog=examples(
        "bench explain correspond mammals:3 mammals:4 --at 64,40",
        "bench explain correspond cat.png dog.png --at 64,40 --out ears.png",
    )
)(correspond)
app.command(
    epilog=examples(
        "bench explain maps mammals",
        "bench explain maps mammals:3 --method safe --shots 16",
        "bench explain maps cat.png --dataset mammals",
    )
)(maps)
app.command(
    epilog=examples(
        "bench explain shapley mammals:3 --value margin",
        "bench explain shapley cat.png --dataset mammals --grid 4",
    )
)(shapley)
app.command(
    epilog=examples("bench explain share", "bench explain share --dataset mammals --scenes 100 --seeds 1")
)(share)
