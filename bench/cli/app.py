"""Put the verbs and their sub-verbs together into one Typer application, with examples for each help."""

from __future__ import annotations

from typing import Annotated

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
from bench.cli.export import export
from bench.cli.import_ import import_
from bench.cli.keep import keep
from bench.cli.listing import app as listing
from bench.cli.merge import merge
from bench.cli.new import app as new
from bench.cli.options import examples
from bench.cli.pack import pack
from bench.cli.plot import plot
from bench.cli.predict import predict
from bench.cli.records import records
from bench.cli.report import report
from bench.cli.run import run
from bench.cli.show_classifier import show
from bench.cli.table import table
from bench.cli.usage import Verbs
from bench.cli.version import version
from bench.cli.weights import app as weights

app = typer.Typer(
    name="bench",
    cls=Verbs,
    help="Measure few-shot adaptation of CLIP: every method under one protocol that leaks no test data.",
    epilog=examples(
        "bench run --methods zero-shot,tip-adapter --datasets digits",
        "bench table",
        "bench compare tip-adapter zero-shot",
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def bench(
    asked: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=version,
            is_eager=True,
            help="Print the versions of bench, Python and torch, and exit.",
        ),
    ] = False,
) -> None:
    """Take the options that stand before the verb."""


app.command(
    "run",
    epilog=examples(
        "bench run",
        "bench run --methods zero-shot,safe --datasets digits,emoji --shots 1,16",
        "bench run --datasets ./photos --methods zero-shot,tip-adapter --shots 8",
        "bench run --methods safe --set safe.lr=0.001 --sweep safe.beta=0:1:0.25",
        "bench run --methods zero-shot --dry-run --why",
    ),
)(run)
app.command(
    "table",
    epilog=examples(
        "bench table",
        "bench table --methods zero-shot,safe --shots 16",
        "bench table 2",
        "bench table classes --dataset emoji --methods safe --shots 16",
        "bench table --results results --format latex --out table.tex",
    ),
)(table)
app.command(
    "compare",
    epilog=examples(
        "bench compare safe tip-adapter-f",
        "bench compare safe:beta=0.5 safe --datasets emoji --shots 16",
        "bench compare zero-shot@hand zero-shot@vanilla --out compare.md",
        "bench compare safe tip-adapter-f --over datasets",
    ),
)(compare)
app.command(
    "pack",
    epilog=examples("bench pack --out packed", "bench table --results packed"),
)(pack)
app.command("convert", epilog=examples("bench convert --results results"))(convert)
app.command(
    "merge",
    epilog=examples(
        "bench merge laptop server --out both", "bench merge laptop server --out both --prefer server"
    ),
)(merge)
app.command("records", epilog=examples("bench records --verbose", "bench records --remove stale,orphaned"))(
    records
)
app.command(
    "import",
    epilog=examples(
        "bench import mine.csv --name mine --dataset digits --shots 4 --seed 1",
        "bench import mine.csv --name mine --dataset eurosat --shots 16 --seed 1",
        "bench import --template mine.csv --dataset digits",
    ),
)(import_)
app.command(
    "plot",
    epilog=examples(
        "bench plot",
        "bench plot cd --out ranks.svg",
        "bench plot reliability --dataset emoji --shots 16",
        "bench plot sweep --setting safe.beta --methods safe",
    ),
)(plot)
app.command(
    "report",
    epilog=examples("bench report", "bench report --results results --out report.html"),
)(report)
app.command(
    "keep",
    epilog=examples(
        "bench keep --method safe --dataset digits --shots 16 --seed 1 --out digits.clf",
        "bench keep --method gda --dataset ./photos --shots 8 --out shop.clf",
    ),
)(keep)
app.command(
    "predict",
    epilog=examples(
        "bench predict shop.clf new/",
        "bench predict shop.clf 'new/*.jpg' --out predictions.csv --top 3",
        "bench predict shop.clf - --out predictions.jsonl < list.txt",
    ),
)(predict)
app.command("show", epilog=examples("bench show shop.clf", "bench show shop.clf --classes"))(show)
app.command(
    "export",
    epilog=examples(
        "bench export shop.clf --onnx shop.onnx",
        "bench export shop.clf photos/ --onnx shop.onnx",
        "bench export --method safe --dataset digits --shots 16 --seed 1 --onnx s.onnx",
    ),
)(export)
app.command(
    "check",
    epilog=examples(
        "bench check --rerun",
        "bench check --rerun --speed --baseline mine.json",
        "bench check --methods safe --datasets digits",
        "bench check --update --baseline mine.json",
    ),
)(check)
app.command(
    "check-method",
    epilog=examples("bench check-method tip-adapter", "bench check-method my_probe.py"),
)(check_method)
app.add_typer(listing, name="list")
app.add_typer(data, name="data")
app.add_typer(explain, name="explain")
app.add_typer(new, name="new")
app.add_typer(weights, name="weights")
app.add_typer(cache, name="cache")
app.command("cite", epilog=CITE)(cite)
