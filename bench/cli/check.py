"""``bench check``: compare predictions with a baseline, to see whether a method got worse."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import complete, say
from bench.cli.codes import Code, first

if TYPE_CHECKING:
    from bench.cli.rerun import Where
    from bench.report.gate.baseline import Baseline, Kept
    from bench.report.gate.speed import Speed
    from bench.report.gate.verdict import Verdict

BASELINE = Path("results/baselines/pocket.json")


def check(
    baseline: Annotated[
        Path, typer.Option(help="JSON file with the predictions to compare with.")
    ] = BASELINE,
    results: Annotated[
        Path | None,
        typer.Option(
            help="Folder that `bench run` or `bench pack` wrote; its records are checked (default: results)."
        ),
    ] = None,
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Run the baseline's cells now, instead of reading records.")
    ] = False,
    keep: Annotated[
        Path | None,
        typer.Option(help="With --rerun: keep the new records in this folder, which must be empty."),
    ] = None,
    update: Annotated[
        bool,
        typer.Option(
            "--update",
            help="Write the baseline instead of checking: with the cells that it has, or with those that "
            "--methods, --datasets, --shots and --seeds choose.",
        ),
    ] = False,
    methods: Annotated[
        str | None,
        typer.Option(help="Check only these methods, as in safe,gda.", autocompletion=complete.methods),
    ] = None,
    datasets: Annotated[
        str | None,
        typer.Option(
            help="Check only these datasets, as in digits,emoji; your own by name or path.",
            autocompletion=complete.datasets,
        ),
    ] = None,
    shots: Annotated[
        str | None, typer.Option(help="Check only these numbers of images per class, as in 1,16.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Check only these seeds, as in 1,2.")] = None,
    margin: Annotated[
        float,
        typer.Option(help="Largest drop of accuracy to accept, in percentage points.", min=0, max=99),
    ] = 1.0,
    agreement: Annotated[
        float,
        typer.Option(
            help="Least share of equal predictions on the same kind of machine, in %.", min=0, max=100
        ),
    ] = 99.5,
    rule: Annotated[
        str,
        typer.Option(
            help="What must hold: agreement of predictions, accuracy, or auto: agreement on the same kind of "
            "machine and accuracy elsewhere.",
            autocompletion=complete.rules,
        ),
    ] = "auto",
    speed: Annotated[
        bool,
        typer.Option(
            "--speed",
            help="With --rerun: also time one cell of each method and number of shots, and fail if one got "
            "slower; with --update: write the times into the baseline.",
        ),
    ] = False,
    slower: Annotated[
        float | None,
        typer.Option(
            help="With --speed: how many times the baseline's time a method may take (default: 1.5).", min=1
        ),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(help="With --speed: repeats of each timed cell (default: 5).", min=3)
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            help="Format: text, json, or github (job summary and annotations).",
            autocompletion=complete.check_formats,
        ),
    ] = "text",
    plugin: Annotated[
        list[Path] | None,
        typer.Option(
            help="With --rerun: Python file with a method of your own. Give the option again to load more."
        ),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(envvar="BENCH_DATA", help="With --rerun: folder that holds the datasets' folders."),
    ] = None,
    prompt_dir: Annotated[
        Path | None, typer.Option(help="With --rerun: folder of CuPL or CaFo sentence files.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="With --rerun: folder of stored features (default: $BENCH_CACHE, else the user's cache)."
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(help="With --rerun: auto, cpu, cuda or cuda:N.", autocompletion=complete.devices),
    ] = "auto",
    precision: Annotated[
        str | None,
        typer.Option(
            help="Precision of the image tower in the checked cells: fp32, fp16 or bf16 (default: the "
            "baseline's).",
            autocompletion=complete.precisions,
        ),
    ] = None,
) -> None:
    """Compare predictions with a baseline, to see whether a method got worse.

    The exit code is 0 if all methods hold, 1 if one failed, got worse or got slower, 4 if the data cannot say
    whether one got worse, and 5 if predictions changed on the same kind of machine and no method is known to
    be worse.
    """
    from bench.cli.options import names, numbers, recorded, writable, writable_folder
    from bench.cli.rerun import Where
    from bench.cli.speed import compared, with_times
    from bench.errors import BenchError
    from bench.records.keys import SINGLE
    from bench.report.frame import load_results
    from bench.report.gate import baseline as baselines
    from bench.report.gate import cells, view
    from bench.report.gate import speed as speeds
    from bench.report.gate.check import check as compare
    from bench.run import devices

    given = {"--keep": keep, "--plugin": plugin, "--prompt-dir": prompt_dir, "--cache": cache}
    _refuse_unheeded(rerun, {**given, "--device": None if device == "auto" else device, "--speed": speed})
    _refuse_unheeded(speed, {"--slower": slower, "--repeats": repeats}, needs="--speed")
    if rerun and results is not None:
        raise BenchError(
            "--results is not read with --rerun: leave out one of the two (--keep FOLDER keeps "
            "the new records)"
        )
    devices.check(device)
    if format not in view.FORMATS:
        raise BenchError(f"--format {format}: choose one of {', '.join(view.FORMATS)}")
    if update:
        writable(baseline, flag="--baseline")
    if keep is not None:
        writable_folder(keep, "--keep")
    if cache is not None:
        writable_folder(cache, "--cache")
    picked = {
        "method": names(methods),
        "shots": numbers(shots, "--shots"),
        "seed": numbers(seeds, "--seeds"),
    }

    def chosen(known: Iterable[str]) -> dict[str, Sequence[Any]]:
        return {**picked, "dataset": tuple(recorded(datasets, set(known)))}

    # An update with cells of the user's choice replaces the baseline, so it reads no earlier one.
    anew = update and not rerun and (any(picked.values()) or bool(datasets) or not baseline.is_file())
    old = None
    if not anew:
        every = baselines.load(baseline)
        old = cells.narrow(every, chosen(k.cell["dataset"] for k in every.kept))
        old = cells.in_precision(old, precision) if precision else old
    if speed and not update and old is not None and not speeds.timed(old.kept):
        raise BenchError(f"--speed: {speeds.NO_TIMES}")
    plugins, turns = tuple(plugin or ()), repeats or speeds.REPEATS
    with tempfile.TemporaryDirectory(prefix="bench-check-") as folder:
        source = (keep or Path(folder)) if rerun else results or Path("results")
        where = Where(source, data_root, prompt_dir, cache, device, precision=precision, plugins=plugins)
        if rerun:
            assert old is not None
            _run_again(old, where)
        frame = load_results(source)
        if bad := frame.attrs["bad"]:
            say.secho(f"bench: {bad}", err=True, fg="yellow")
        if update:
            kept = cells.chosen(frame, old, chosen(frame["dataset"]), precision or SINGLE)
            _write(baseline, with_times(kept, plugins, where, turns) if speed else kept)
            raise typer.Exit(Code.INCOMPLETE if bad else Code.GOOD)
        assert old is not None
        verdict = compare(old, frame, margin / 100, agreement / 100, rule)
        pace = (
            compared(old.kept, plugins, where, turns, slower or speeds.LIMIT)
            if speed
            else speeds.unasked(old.kept)
        )
    _tell(verdict, pace, format)
    slowed = Code.FAILED if pace.slower else Code.GOOD
    raise typer.Exit(first(_code(verdict), slowed, Code.INCOMPLETE if bad else Code.GOOD))


def _refuse_unheeded(asked: bool, given: Mapping[str, object], needs: str = "--rerun") -> None:
    """Raise BenchError if options are given without the option that they need.

    ``asked``: whether that option is given. ``given``: the options' values by flag; None for an option that
    was not given.
    """
    from bench.errors import BenchError

    if lone := [flag for flag, value in given.items() if value and not asked]:
        works, these = ("work", "them") if lone[1:] else ("works", lone[0])
        raise BenchError(f"{' and '.join(lone)} {works} only with {needs}: add {needs}, or leave {these} out")


def _run_again(old: Baseline, where: Where) -> None:
    """Run a baseline's cells into an empty folder. Raises BenchError if the folder holds records."""
    from bench.cli.rerun import rerun
    from bench.errors import BenchError
    from bench.registry import with_plugins

    if any((where.results / "runs").glob("*")):
        raise BenchError(f"--keep {where.results}: the folder holds records, and a rerun needs an empty one")
    rerun(old.kept, with_plugins(where.plugins), where, lambda line: say.echo(line, err=True))


def _write(file: Path, kept: Sequence[Kept]) -> None:
    """Write a baseline and print what is in it."""
    from bench.names import counted
    from bench.report.gate import baseline as baselines

    methods = len({k.cell["method"] for k in kept})
    timed = sum(k.timing is not None for k in kept)
    times = f"times of {counted(timed, 'cell')}" if timed else "no times"
    baselines.save(file, baselines.Baseline(tuple(kept)))
    say.echo(f"{file}: {counted(len(kept), 'evaluation')} of {counted(methods, 'method')}, {times}")


def _code(verdict: Verdict) -> Code:
    """Return the exit code of a verdict."""
    codes = {
        "held": Code.GOOD,
        "failed": Code.FAILED,
        "worse": Code.FAILED,
        "undecided": Code.UNDECIDED,
        "changed": Code.CHANGED,
    }
    return codes[verdict.finding]


def _tell(verdict: Verdict, speed: Speed, format: str) -> None:
    """Print the verdict; for GitHub print annotations too, and append the summary to the runner's file.

    The summary is written last, because writing its file may fail.
    """
    from bench.report.gate import view

    if format == "github":
        say.echo(view.commands(verdict, speed), nl=False)
    if format == "json":
        say.made(view.as_json(verdict, speed))
    else:
        say.echo(view.text(verdict, speed), nl=False)
    file = os.environ.get("GITHUB_STEP_SUMMARY") if format == "github" else None
    if file:
        with open(file, "a", encoding="utf-8") as summary:
            summary.write(view.summary(verdict, speed))
