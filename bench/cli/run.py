"""``bench run``: measure every cell of a grid, resuming what is done."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from bench.cli import say, streams
from bench.names import KEEP_STATES, PROTOCOLS, RECIPE

if TYPE_CHECKING:
    from bench.cli.codes import Code
    from bench.cli.run_way import How, Work
    from bench.plan.cells import Plan
    from bench.plan.request import Request
    from bench.registry import Registry
    from bench.suite import Suite

SUITE = "pocket"
AUTO = "auto"
T = TypeVar("T")


class Ended(typer.Exit):
    """The end of a run: its exit code, and the plan that it followed, which ``bench.measure`` reads."""

    def __init__(self, code: Code, plan: Plan) -> None:
        super().__init__(code)
        self.plan = plan


def run(
    suite: Annotated[
        str, typer.Option(help="Names what to measure; the other options replace parts of it.")
    ] = SUITE,
    methods: Annotated[str | None, typer.Option(help="Comma-separated; see `bench list methods`.")] = None,
    datasets: Annotated[
        str | None, typer.Option(help="Comma-separated names, image folders or TOML files.")
    ] = None,
    shots: Annotated[str | None, typer.Option(help="Images per class, comma-separated.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Few-shot draws, comma-separated.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Comma-separated: pocket-rn, RN50, ARCH/TAG, ARCH@FILE.")
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(help="Prompt sets for every method, comma-separated.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Budget: paper or quick (default: by backbone).")] = None,
    protocol: Annotated[str, typer.Option(help=f"{', '.join(PROTOCOLS[:-1])} or {PROTOCOLS[-1]}.")] = RECIPE,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="method.key=value; may be repeated.")
    ] = None,
    sweep: Annotated[list[str] | None, typer.Option(help="method.key=start:stop:step or a,b,c.")] = None,
    targets: Annotated[bool | None, typer.Option(help="Also evaluate a dataset's shifted test sets.")] = None,
    plugin: Annotated[
        list[Path] | None, typer.Option(help="A Python file with a method; may be repeated.")
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(envvar="BENCH_DATA", help="Folder of the datasets.")
    ] = None,
    prompt_dir: Annotated[Path | None, typer.Option(help="Folder of CuPL or CaFo sentence files.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Feature store (default: $BENCH_CACHE or the user's cache).")
    ] = None,
    results: Annotated[Path, typer.Option(help="Where records go.")] = Path("results"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="Of the image tower while it encodes: fp32, fp16, bf16, or auto: the fastest that agrees."
        ),
    ] = "fp32",
    executor: Annotated[
        str, typer.Option(help="local: processes of this machine; ray: a Ray cluster.")
    ] = "local",
    ray_address: Annotated[
        str | None, typer.Option(help="An existing Ray cluster (default: a local one).")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes that fit (default: by GPUs, or cores and work).")
    ] = None,
    join: Annotated[
        bool | None, typer.Option(help="Train a method's seeds and shots together (default: on a GPU).")
    ] = None,
    dense_cache: Annotated[
        bool, typer.Option(help="Store dense features of test images, or stream them.")
    ] = True,
    workers: Annotated[
        int | None, typer.Option(help="Processes that decode images (default: by amount of work).", min=0)
    ] = None,
    max_pixels: Annotated[
        str | None, typer.Option(help="Refuse images with more pixels, as in 500M (default: by memory).")
    ] = None,
    keep_states: Annotated[
        str, typer.Option(help=f"Fitted tensors to keep: {', '.join(KEEP_STATES)}.")
    ] = "needed",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    why: Annotated[
        bool, typer.Option("--why", help="With --dry-run: what made cells stale or drifted.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run again what is done already.")] = False,
    fresh_device: Annotated[
        bool, typer.Option("--fresh-device", help="Run again what was recorded on another kind of device.")
    ] = False,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Go on without classes of your own folders that cannot be used."),
    ] = False,
    time_budget: Annotated[
        float | None,
        typer.Option(
            help="Minutes after which no cell starts; one that runs a tenth more (at least 30 s) is stopped."
        ),
    ] = None,
    allow_torchscript: Annotated[
        bool, typer.Option("--allow-torchscript", help="Load weights that run code.")
    ] = False,
) -> None:
    """Measure every method x dataset x shots x seed cell; what is done already is not done again."""
    from bench import registry as registries
    from bench.cli import asked, options, plan_view, run_cells, run_way
    from bench.cli.codes import Code
    from bench.cli.options import names, numbers
    from bench.data import limit
    from bench.executors import budget
    from bench.names import canonical
    from bench.plan import settings
    from bench.plan.request import Request
    from bench.run import devices
    from bench.suite import load

    deadline, stop = budget.ends(time_budget, time.monotonic())
    # Threads that wait in a loop for each other starve whatever else runs here; torch reads it as it starts.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    lists = {"--methods": methods, "--datasets": datasets, "--shots": shots, "--seeds": seeds}
    asked.check(
        lists={**lists, "--backbone": backbone, "--prompts": prompts},
        executor=executor,
        ray_address=ray_address,
        jobs=jobs,
        device=device,
        keep_states=keep_states,
        time_budget=time_budget,
        why=why,
        dry_run=dry_run,
    )
    asked.places(results, cache, executor, reads=dry_run)
    chosen = load(suite)
    registry = _in_time(stop, lambda: registries.with_plugins(tuple(plugin or ())))
    known = {canonical(m.name): m for m in registry.methods.values()}
    given = options.datasets(datasets)
    backbones = options.backbones(backbone) or _usual_backbones(given, chosen)
    auto = precision == AUTO
    if auto:
        asked.one_tower(backbones, executor)
        precision = _in_time(stop, lambda: _fastest(backbones[0], device, allow_torchscript, cache))
    request = Request(
        methods=names(methods) or chosen.methods,
        datasets=given or chosen.datasets,
        shots=numbers(shots, "--shots") or chosen.shots,
        seeds=numbers(seeds, "--seeds") or chosen.seeds,
        backbones=backbones,
        prompts=names(prompts) or chosen.prompts,
        preset=preset,
        protocol=protocol,
        overrides=settings.parse_overrides(set_ or (), known),
        sweeps=settings.parse_sweeps(sweep or chosen.sweeps, known),
        targets=chosen.targets if targets is None else targets,
        precision=precision,
        data_root=data_root,
        prompt_dir=prompt_dir,
        results=results,
        cache=cache,
        allow_torchscript=allow_torchscript,
        skip_bad=skip_bad,
        max_pixels=limit.parsed(max_pixels) if max_pixels is not None else None,
    )
    asked.heeded(request, registry, set_ or (), sweep or ())
    asked.plugins(request, registry, plugin or ())
    kind = devices.kind(device)
    how = run_way.How(
        device=device,
        cache=cache,
        plugins=tuple(plugin or ()),
        workers=workers,
        dense_cache=dense_cache,
        keep_states=keep_states,
        executor=executor,
        ray_address=ray_address,
        jobs=jobs,
        join=join,
        kind=kind,
        anew=fresh or (fresh_device and kind),
        deadline=deadline,
        stop=stop,
    )
    work = _plan(request, registry, how, auto, asks_targets=bool(targets))
    if dry_run:
        if why:
            plan_view.show_why(work.plan, work.todo, work.earlier, how.anew)
        raise Ended(Code.GOOD, work.plan)
    if not work.todo:
        raise Ended(plan_view.show_idle(work.plan, work.complete), work.plan)
    raise Ended(run_cells.do(work, how), work.plan)


def _plan(request: Request, registry: Registry, how: How, auto: bool, asks_targets: bool) -> Work:
    """Plan, look what is left, and say it. ``auto``: the precision was measured, not named."""
    from bench.cli import plan_view
    from bench.cli.run_way import Work
    from bench.cli.steps import Steps
    from bench.plan import estimate, planner
    from bench.plan.earlier import Earlier
    from bench.plan.todo import remaining
    from bench.records import store
    from bench.records.whole import Bad

    with Steps("planning") as steps:
        planned = _in_time(how.stop, lambda: planner.make(request, registry, steps.soon))
    bad: list[Bad] = []
    todo, complete = remaining(planned, how.anew, bad)
    if todo:
        store.require_present(request.results)
    earlier = Earlier(request.results)
    device = how.kind if how.device == "auto" else how.device
    expected, roof = plan_view.show(planned, todo, complete, earlier, device, how.dense_cache)
    plan_view.show_bad(bad)
    if auto and not complete:
        plan_view.show_precisions(planned, earlier, request.precision)
    if asks_targets and not any(fit.dataset.spec.targets for fit in planned.fits):
        say.secho("  note: --targets: none of these datasets has shifted test sets", fg="yellow")
    guesses = estimate.cells(earlier, todo, how.kind, roof) if todo else {}
    return Work(request, registry, planned, todo, complete, earlier, guesses, expected)


def _in_time(stop: float | None, work: Callable[[], T]) -> T:
    """What ``work`` gives. Where it runs on after ``stop`` (time.monotonic), the command ends.

    A method that is at it then fails at that, and what asks it may go on with the others.
    """
    from bench.cli.codes import Code
    from bench.executors import budget

    line = (
        "bench: the plan was not made before the time budget's end: "
        "give it more, or see with --dry-run which method takes the time"
    )

    def give_up() -> None:
        say.secho(line, err=True, fg="red")
        streams.leave(Code.INCOMPLETE)

    try:
        with budget.last_resort(stop, give_up), budget.alarm(stop):
            return work()
    except budget.OutOfTime:
        say.secho(line, err=True, fg="red")
        raise typer.Exit(Code.INCOMPLETE) from None


def _fastest(backbone: str, device: str, allow_torchscript: bool, cache: Path | None) -> str:
    """What ``--precision auto`` comes to; says why."""
    from bench.clip.backbone import resolve
    from bench.run import precision

    found, line = precision.auto(resolve(backbone, allow_torchscript), device, cache)
    say.echo(line)
    return found


def _usual_backbones(datasets: tuple[str, ...], suite: Suite) -> tuple[str, ...]:
    """The suite's backbones for what they know, the embedded drawings; for anything else CLIP's RN50."""
    from bench.cli import plan_view
    from bench.data import catalog

    known = all(plan_view.embedded(catalog.describe(dataset)) for dataset in datasets)
    return suite.backbones if known else ("RN50",)
