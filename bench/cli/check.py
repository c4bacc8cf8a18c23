"""``bench check``: have the methods got worse than a baseline?"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bench.report.gate.verdict import Verdict

BASELINE = Path("results/baselines/pocket.json")


def check(
    baseline: Annotated[Path, typer.Option(help="JSON file of predictions to compare with.")] = BASELINE,
    results: Annotated[Path, typer.Option(help="Folder that `bench run` wrote to, or a packed one.")] = Path(
        "results"
    ),
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Run the baseline's cells now instead of reading records.")
    ] = False,
    keep: Annotated[
        Path | None, typer.Option(help="With --rerun: leave the new records in this empty folder.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Write the baseline: its cells, or those chosen below.")
    ] = False,
    methods: Annotated[str | None, typer.Option(help="Only these, comma-separated.")] = None,
    datasets: Annotated[str | None, typer.Option(help="Only these.")] = None,
    shots: Annotated[str | None, typer.Option(help="Only these.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Only these.")] = None,
    margin: Annotated[float, typer.Option(help="Largest accuracy drop to accept, in points.", min=0)] = 1.0,
    agreement: Annotated[
        float, typer.Option(help="Least agreement on the same kind of machine, in %.", min=0, max=100)
    ] = 99.5,
    rule: Annotated[str, typer.Option(help="auto, or agreement or accuracy on every machine.")] = "auto",
    slower: Annotated[float, typer.Option(help="Speed ratio from which to warn.", min=1)] = 1.5,
    strict_speed: Annotated[
        bool, typer.Option("--strict-speed", help="Fail where it would warn of speed.")
    ] = False,
    format: Annotated[
        str, typer.Option(help="text, json, or github (job summary and annotations).")
    ] = "text",
    plugin: Annotated[
        list[Path] | None, typer.Option(help="With --rerun: a Python file with a method.")
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(envvar="BENCH_DATA", help="With --rerun: folder of the datasets.")
    ] = None,
    prompt_dir: Annotated[Path | None, typer.Option(help="With --rerun: folder of sentence files.")] = None,
    cache: Annotated[Path | None, typer.Option(help="With --rerun: feature store.")] = None,
    device: Annotated[str, typer.Option(help="With --rerun: auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        str | None, typer.Option(help="Of the new cells: fp32, fp16 or bf16 (default: the baseline's).")
    ] = None,
) -> None:
    """Compare predictions with a baseline.

    Exit 0 if they hold, 1 if a method got worse, 4 if the images cannot tell, 5 if predictions changed and
    the accuracy held.
    """
    from bench.cli.codes import Code
    from bench.cli.options import names, numbers
    from bench.cli.rerun import Where
    from bench.cli.rerun import rerun as run_again
    from bench.errors import BenchError
    from bench.records.keys import SINGLE
    from bench.registry import with_plugins
    from bench.report.frame import load_results
    from bench.report.gate import baseline as baselines
    from bench.report.gate import cells, view
    from bench.report.gate.check import calibrate
    from bench.report.gate.check import check as compare
    from bench.run import devices

    given: dict[str, object] = {
        "--keep": keep,
        "--plugin": plugin,
        "--prompt-dir": prompt_dir,
        "--cache": cache,
    }
    given["--device"] = None if device == "auto" else device
    if lone := [flag for flag, value in given.items() if value and not rerun]:
        raise BenchError(f"{' and '.join(lone)}: heeded with --rerun alone; add it, or leave {lone[0]} out")
    devices.check(device)
    if format not in view.FORMATS:
        raise BenchError(f"--format {format}: choose one of {', '.join(view.FORMATS)}")
    chosen: dict[str, Sequence[Any]] = {"method": names(methods), "dataset": names(datasets)}
    chosen |= {"shots": numbers(shots, "--shots"), "seed": numbers(seeds, "--seeds")}
    old = None if update and not baseline.is_file() else cells.narrow(baselines.load(baseline), chosen)
    if old is not None and precision:
        old = cells.in_precision(old, precision)
    calibration = None
    with tempfile.TemporaryDirectory(prefix="bench-check-") as folder:
        if rerun:
            if old is None:
                raise BenchError(
                    f"{baseline}: no baseline whose cells could run again; "
                    "write one from records, without --rerun"
                )
            results = keep or Path(folder)
            if any((results / "runs").glob("*")):
                raise BenchError(
                    f"--keep {results}: there are records, and a rerun must not find any; "
                    "name an empty folder"
                )
            where = Where(results, data_root, prompt_dir, cache, device, precision=precision)
            before = calibrate()
            run_again(
                old.kept, with_plugins(tuple(plugin or ())), where, lambda line: typer.echo(line, err=True)
            )
            calibration = (before + calibrate()) / 2
        frame = load_results(results)
        if update:
            kept = cells.chosen(
                frame, None if any(chosen.values()) and not rerun else old, chosen, precision or SINGLE
            )
            baselines.save(baseline, baselines.Baseline(tuple(kept), calibration))
            typer.echo(
                f"{baseline}: {len(kept)} evaluations of {len({k.cell['method'] for k in kept})} methods"
            )
            return
        assert old is not None
        verdict = compare(old, frame, margin / 100, agreement / 100, rule, calibration, slower)
    if strict_speed and verdict.speed is None:
        raise BenchError(
            "--strict-speed: no seconds to compare; take --rerun, and a baseline written by --update --rerun"
        )
    if format == "github":
        _tell_github(verdict, strict_speed)
    typer.echo(view.as_json(verdict) if format == "json" else view.text(verdict), nl=False)
    codes = {"held": Code.GOOD, "worse": Code.FAILED, "undecided": Code.UNDECIDED, "changed": Code.CHANGED}
    raise typer.Exit(Code.FAILED if strict_speed and verdict.slow else codes[verdict.finding])


def _tell_github(verdict: Verdict, strict_speed: bool) -> None:
    """Annotations on standard output, where the runner reads them; the summary in the file that it names."""
    from bench.report.gate import view

    typer.echo(view.commands(verdict, strict_speed), nl=False)
    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if file:
        with open(file, "a", encoding="utf-8") as summary:
            summary.write(view.summary(verdict))
