"""Run the cells of a baseline again, as ``bench run`` would, into a folder of their own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.report.coordinates import CELL
from bench.report.gate.baseline import Kept

if TYPE_CHECKING:
    from bench.executors.loop import Way
    from bench.plan.cells import Plan, Planned
    from bench.plan.request import Request
    from bench.plan.todo import Todo
    from bench.registry import Registry
    from bench.run.desk import Desk


@dataclass(frozen=True)
class Where:
    """The places and the device of a rerun; the fields are the options of ``bench run``.

    ``precision``: the precision of the image tower; None: each cell's own.
    """

    results: Path
    data_root: Path | None = None
    prompt_dir: Path | None = None
    cache: Path | None = None
    device: str = "auto"
    workers: int | None = None
    precision: str | None = None
    plugins: tuple[Path, ...] = ()


def rerun(kept: Sequence[Kept], registry: Registry, where: Where, say: Callable[[str], None]) -> None:
    """Fit and evaluate the kept cells from scratch. A cell that fails leaves a record that says so.

    Raises BenchError if a cell cannot run here.
    """
    from bench.executors import loop
    from bench.plan.todo import remaining
    from bench.run.desk import Desk
    from bench.run.session import Session

    session = Session(where.device, where.cache, say, where.workers)
    # Each precision runs by itself, because an encoder tells backbones apart by their weights alone.
    for precision in sorted({where.precision or k.precision for k in kept}):
        some = [k for k in kept if precision == (where.precision or k.precision)]
        for request, plan in _shares(_plans(some, registry, where)):
            todo, _ = remaining(plan)
            desk = Desk(session, registry, where.results, "none")
            way = _way(desk, todo, request, where, say)
            loop.run(desk, plan, todo, way, lambda ended, done, total: say(f"[{done}/{total}] {ended.said}"))


def plan_of(kept: Sequence[Kept], registry: Registry, where: Where) -> Plan:
    """Return a plan of exactly these evaluations. Raises BenchError if one cannot run here."""
    return _joined([plan for _, plan in _plans(kept, registry, where)])


def _plans(kept: Sequence[Kept], registry: Registry, where: Where) -> list[tuple[Request, Plan]]:
    """Return plans that together have exactly these evaluations, and the request behind each."""
    from bench.plan import planner

    plans = []
    for request, wanted in _requests(kept, where):
        made = planner.make(request, registry)
        if made.blocked:
            first = made.blocked[0]
            raise BenchError(f"cannot run {first.method} on {first.dataset} again: {first.reason}")
        fits = []
        for fit in made.fits:
            cell = tuple(getattr(fit.cell, name) for name in CELL)
            evaluations = tuple(e for e in fit.evaluations if (*cell, e.target.name) in wanted)
            fits.append(replace(fit, evaluations=evaluations, asked=bool(evaluations)))
        plans.append((replace(request, contents=made.contents), replace(made, fits=fits)))
    return plans


def _joined(plans: Sequence[Plan]) -> Plan:
    """Return one plan of several, in which a fit has its evaluations of all of them."""
    from bench.plan.cells import Plan

    fits: dict[str, Planned] = {}
    for fit in (fit for plan in plans for fit in plan.fits):
        known = fits[fit.key].evaluations if fit.key in fits else ()
        evaluations = tuple({e.key: e for e in (*known, *fit.evaluations)}.values())
        fits[fit.key] = replace(fit, evaluations=evaluations, asked=bool(evaluations))
    contents = {name: digest for plan in plans for name, digest in plan.contents.items()}
    return Plan(sorted(fits.values(), key=lambda f: f.cell.seed), [], contents=contents)


def _shares(plans: Sequence[tuple[Request, Plan]]) -> list[tuple[Request | None, Plan]]:
    """Return the plans that are run one after the other, each with its request.

    Plans that need the same fit are joined, so that it is made once. A joined plan has no request.
    """
    from bench.plan.cells import chain

    needs = [
        {below.key for fit in plan.fits if fit.asked for below in (fit, *chain(fit))} for _, plan in plans
    ]
    count = Counter(key for keys in needs for key in keys)
    alone = [all(count[key] == 1 for key in keys) for keys in needs]
    shares: list[tuple[Request | None, Plan]] = [
        (request, _joined([plan])) for (request, plan), single in zip(plans, alone, strict=True) if single
    ]
    rest = [plan for (_, plan), single in zip(plans, alone, strict=True) if not single]
    return [*shares, (None, _joined(rest))] if rest else shares


def _way(
    desk: Desk, todo: list[Todo], request: Request | None, where: Where, say: Callable[[str], None]
) -> Way:
    """Return the executor: as many processes as ``bench run`` would use, or this process without a request.

    A worker process makes its plan from one request.
    """
    from bench.executors import processes
    from bench.executors.serial import Serial
    from bench.executors.worker import Setup
    from bench.plan import estimate, rounds

    seconds = estimate.usual(todo)
    parts = rounds.apart(todo, not desk.session.dense_cache, desk.join, seconds)
    jobs = processes.default_jobs(desk.session.device, parts) if request is not None else 1
    if request is None or jobs == 1:
        return Serial(desk)
    say(f"{jobs} processes fit side by side")
    setup = Setup(
        request=request,
        plugins=where.plugins,
        device=desk.session.device,
        cache=where.cache,
        keep_states="none",
        fresh=False,
        dense_cache=desk.session.dense_cache,
        join=desk.join,
        clock=replace(desk.recorder.clock),
    )
    return processes.Processes(setup, jobs, seconds=seconds)


def _requests(kept: Sequence[Kept], where: Where) -> list[tuple[Request, set[tuple[Any, ...]]]]:
    """Return grids that cover the cells, each with the evaluations that are wanted of it.

    There is one grid for each choice of backbone, prompts, protocol, preset, precision and settings.
    """
    from bench.names import canonical
    from bench.plan.request import Request

    groups: dict[str, list[Kept]] = {}
    for k in kept:
        c = k.cell
        coordinates = [
            c["backbone"],
            c["prompts"],
            c["protocol"],
            c["preset"],
            where.precision or k.precision,
        ]
        key = json.dumps([*coordinates, k.overrides], sort_keys=True)
        groups.setdefault(key, []).append(k)
    requests = []
    for cells in groups.values():
        c = cells[0].cell
        overrides = {
            canonical(m): {s: _setting(v) for s, v in values.items()}
            for m, values in cells[0].overrides.items()
        }

        def every(name: str, cells: list[Kept] = cells) -> tuple[Any, ...]:
            return tuple(sorted({k.cell[name] for k in cells} - {0}))

        request = Request(
            methods=every("method"),
            datasets=every("dataset"),
            shots=every("shots"),
            seeds=every("seed"),
            backbones=(c["backbone"],),
            prompts=(c["prompts"],),
            preset=c["preset"],
            protocol=c["protocol"],
            overrides=overrides,
            targets=any(k.target != k.cell["dataset"] for k in cells),
            data_root=where.data_root,
            prompt_dir=where.prompt_dir,
            results=where.results,
            cache=where.cache,
            precision=where.precision or cells[0].precision,
        )
        requests.append((request, {k.identity[:-1] for k in cells}))
    return requests


def _setting(value: Any) -> Any:
    """Return a setting's value from JSON, which has lists where settings have tuples."""
    return tuple(map(_setting, value)) if isinstance(value, list) else value
