"""``bench run``: measure every cell of a grid; cells that are recorded already are not run again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from bench.cli import run_options as given
from bench.cli import say, streams
from bench.names import RECIPE

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
    suite: given.Suite = SUITE,
    methods: given.Methods = None,
    datasets: given.Datasets = None,
    shots: given.Shots = None,
    seeds: given.Seeds = None,
    folds: given.Folds = None,
    backbone: given.Backbone = None,
    prompts: given.Prompts = None,
    preset: given.Preset = None,
    protocol: given.Protocol = RECIPE,
    set_: given.Set = None,
    sweep: given.Sweep = None,
    targets: given.Targets = None,
    plugin: given.Plugin = None,
    data_root: given.DataRoot = None,
    prompt_dir: given.PromptDir = None,
    cache: given.Cache = None,
    results: given.Results = Path("results"),
    keep_states: given.KeepStates = "needed",
    skip_bad: given.SkipBad = False,
    max_pixels: given.MaxPixels = None,
    allow_torchscript: given.AllowTorchscript = False,
    dry_run: given.DryRun = False,
    why: given.Why = False,
    fresh: given.Fresh = False,
    fresh_device: given.FreshDevice = False,
    time_budget: given.TimeBudget = None,
    device: given.Device = "auto",
    precision: given.Precision = "fp32",
    executor: given.Executor = "local",
    ray_address: given.RayAddress = None,
    jobs: given.Jobs = None,
    join: given.Join = None,
    workers: given.Workers = None,
    dense_cache: given.DenseCache = True,
    keep_logits: given.KeepLogits = False,
) -> None:
    """Measure every combination of method, dataset, shots and seed, and record the accuracies.

    What is recorded already is not run again, so the same command goes on after an interruption.
    """
    from bench import registry as registries
    from bench.cli import asked, options, plan_view, run_cells, run_way
    from bench.cli.codes import Code
    from bench.cli.options import names, numbers
    from bench.data import limit
    from bench.executors import budget
    from bench.names import canonical
    from bench.plan import settings
    from bench.plan.request import Request
    from bench.records.keys import ALL
    from bench.run import devices
    from bench.suite import load

    deadline, stop = budget.ends(time_budget, time.monotonic())
    # Threads that wait in a loop starve other programs here; torch reads this variable when it starts.
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
    asked.folds(folds, shots, seeds, bool(targets))
    asked.places(results, cache, executor, reads=dry_run)
    chosen = load(suite)
    registry = _in_time(stop, lambda: registries.with_plugins(tuple(plugin or ())))
    known = {canonical(m.name): m for m in registry.methods.values()}
    named = options.datasets(datasets)
    backbones = options.backbones(backbone) or _usual_backbones(named, chosen)
    auto = precision == AUTO
    if auto:
        asked.one_tower(backbones, executor)
        precision = _in_time(stop, lambda: _fastest(backbones[0], device, allow_torchscript, cache))
    request = Request(
        methods=names(methods) or chosen.methods,
        datasets=named or chosen.datasets,
        shots=(ALL,) if folds else numbers(shots, "--shots") or chosen.shots,
        seeds=() if folds else numbers(seeds, "--seeds") or chosen.seeds,
        backbones=backbones,
        prompts=names(prompts) or chosen.prompts,
        preset=preset,
        protocol=protocol,
        overrides=settings.parse_overrides(set_ or (), known),
        sweeps=settings.parse_sweeps(sweep or chosen.sweeps, known),
        targets=not folds and (chosen.targets if targets is None else targets),
        precision=precision,
        data_root=data_root,
        prompt_dir=prompt_dir,
        results=results,
        cache=cache,
        allow_torchscript=allow_torchscript,
        skip_bad=skip_bad,
        max_pixels=limit.parsed(max_pixels) if max_pixels is not None else None,
        folds=folds or 0,
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
        keep_logits=keep_logits,
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
    """Make the plan, find the cells that are left, and print both.

    ``auto``: the precision was measured, not named by the user.
    """
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
    if how.keep_logits:
        plan_view.show_logits(planned, todo)
    if auto and not complete:
        plan_view.show_precisions(planned, earlier, request.precision)
    if asks_targets and not any(fit.dataset.spec.targets for fit in planned.fits):
        say.secho("  note: --targets: none of these datasets has shifted test sets", fg="yellow")
    guesses = estimate.cells(earlier, todo, how.kind, roof) if todo else {}
    return Work(request, registry, planned, todo, complete, earlier, guesses, expected)


def _in_time(stop: float | None, work: Callable[[], T]) -> T:
    """Return what ``work`` returns; end the command if it runs on after ``stop`` (time.monotonic).

    A method that is being loaded or planned at that moment fails, and ``work`` may go on with the others.
    """
    from bench.cli.codes import Code
    from bench.executors import budget

    line = (
        "bench: the time budget ended before the plan was made: "
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
    """Measure which precision ``--precision auto`` means here, print why, and return it."""
    from bench.clip.backbone import resolve
    from bench.run import precision

    found, line = precision.auto(resolve(backbone, allow_torchscript), device, cache)
    say.echo(line)
    return found


def _usual_backbones(datasets: tuple[str, ...], suite: Suite) -> tuple[str, ...]:
    """Return the suite's backbones, which know drawings, if all datasets are embedded; else CLIP's RN50."""
    from bench.cli import plan_view
    from bench.data import catalog

    known = all(plan_view.embedded(catalog.describe(dataset)) for dataset in datasets)
    return suite.backbones if known else ("RN50",)
