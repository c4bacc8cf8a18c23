"""Time cells of a baseline: fit and evaluate each several times, between runs of a reference workload.

A round visits every cell, so that the repeats of a cell are spread over the whole measurement. Whatever slows
the machine for a while slows one repeat of every cell, and the reference workload beside it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bench.cli import say
from bench.errors import BenchError
from bench.lazy import torch
from bench.names import counted
from bench.registry import with_plugins
from bench.report.gate import speed
from bench.report.gate.baseline import Kept, Timing
from bench.stats.speed import Repeat

if TYPE_CHECKING:
    from bench.cli.rerun import Where
    from bench.interface import State
    from bench.plan.cells import Planned
    from bench.registry import Registry
    from bench.run.session import Session

_WORK = 1.0  # a repeat fits its cell until this many seconds have passed, at least once
_REFERENCE = 0.4  # the same for the reference workload

Identity = tuple[Any, ...]
Spent = tuple[float, float]  # seconds of the processor, and on the clock


@dataclass
class Times:
    """The cells with their new times, and the reasons of those that were not timed; both by identity."""

    new: dict[Identity, Kept] = field(default_factory=dict)
    why_not: dict[Identity, str] = field(default_factory=dict)


@dataclass
class _Subject:
    """A cell that is timed: its fit, the states that the fit reads, and its repeats so far.

    A repeat is what the work, the reference before it and the reference after it spent.
    """

    kept: Kept
    fit: Planned
    below: dict[str, State]
    repeats: list[tuple[Spent, Spent, Spent]] = field(default_factory=list)


def compared(
    old: Sequence[Kept], plugins: tuple[Path, ...], where: Where, repeats: int, limit: float
) -> speed.Speed:
    """Time the cells of a baseline that have times, and compare. ``limit``: the largest ratio to accept."""
    times = measure(speed.timed(old), with_plugins(plugins), where, repeats, _say, speed.unlike)
    return speed.compare(old, times.new, times.why_not, limit)


def with_times(kept: Sequence[Kept], plugins: tuple[Path, ...], where: Where, repeats: int) -> list[Kept]:
    """Return cells that run here, one of each group with its times. Raises BenchError if one fails."""
    times = measure(speed.chosen(kept), with_plugins(plugins), where, repeats, _say)
    if times.why_not:
        (method, dataset, *_), why = next(iter(times.why_not.items()))
        raise BenchError(f"the baseline is not written: {method} on {dataset}: {why}")
    return [replace(k, timing=times.new[k.identity].timing) if k.identity in times.new else k for k in kept]


def _say(line: str) -> None:
    say.echo(line, err=True)


def measure(
    kept: Sequence[Kept],
    registry: Registry,
    where: Where,
    repeats: int,
    say: Callable[[str], None],
    unlike: Callable[[Kept, Kept], str] = lambda old, new: "",
) -> Times:
    """Time these cells here, and return them with their times, machine and precision.

    ``unlike``: returns why the times of a cell here would be of no use, or "". Such a cell is not timed. Nor
    is one that fails. Raises BenchError if a cell cannot run here.
    """
    from bench.run.session import Session

    session, times = Session(where.device, where.cache, say, where.workers), Times()
    with tempfile.TemporaryDirectory(prefix="bench-speed-") as folder:
        elsewhere = replace(where, results=Path(folder))
        prepared = (_prepared(session, k, registry, elsewhere, unlike, times) for k in kept)
        # The first fit of a process imports and compiles, so it is not counted.
        subjects = [s for s in prepared if s is not None and _tried(session, s, 0, times) is not None]
        reference = _reference(session.device)
        for turn in range(repeats if subjects else 0):
            say(f"timing {counted(len(subjects), 'cell')}, repeat {turn + 1} of {repeats}")
            before = _spent(session, reference, _REFERENCE)
            for subject in list(subjects):
                work = _tried(session, subject, _WORK, times)
                if work is None:
                    subjects.remove(subject)
                    continue
                after = _spent(session, reference, _REFERENCE)
                subject.repeats.append((work, before, after))
                before = after
    session.close()
    for subject in subjects:
        times.new[subject.kept.identity] = replace(subject.kept, timing=_timing(subject, session))
    return times


def _prepared(
    session: Session,
    old: Kept,
    registry: Registry,
    where: Where,
    unlike: Callable[[Kept, Kept], str],
    times: Times,
) -> _Subject | None:
    """Encode what a cell reads and make the states that it builds on; None if it is not timed."""
    from bench.cli.rerun import plan_of
    from bench.plan.todo import remaining
    from bench.run import provenance
    from bench.run.desk import Desk

    todo, _ = remaining(plan_of([old], registry, where))
    t = next(t for t in todo if t.evaluations)
    with session.threads(t.fit.backbone):
        machine = msgspec.to_builtins(provenance.of_run(session.device, t.fit.method))
        now = replace(old, machine=machine, precision=where.precision or old.precision)
        if why := unlike(old, now):
            times.why_not[old.identity] = why
            return None
    desk = Desk(session, registry, where.results, "none")
    desk.encoder.begin([t])
    try:
        for _, error in desk.encoder.encode([t]).stopped:
            raise error
        desk.states.begin([t])
        with session.threads(t.fit.backbone):
            return _Subject(now, t.fit, desk.states.below(t.fit))
    except Exception as error:
        times.why_not[old.identity] = _failed(error)
        return None


def _tried(session: Session, subject: _Subject, least: float, times: Times) -> Spent | None:
    """Return what fitting and evaluating a cell takes; None if it fails, with the reason in ``times``."""
    try:
        with session.threads(subject.fit.backbone):
            return _spent(session, lambda: _fit_and_evaluate(session, subject), least)
    except Exception as error:
        times.why_not[subject.kept.identity] = _failed(error)
        return None


def _failed(error: Exception) -> str:
    from bench.run import stages

    return f"it failed when it was timed: {stages.message(error)}"


def _fit_and_evaluate(session: Session, subject: _Subject) -> None:
    from bench.run import evaluate, task
    from bench.run import fit as fitting

    fit = subject.fit
    fitted, consts, _ = fitting.run_fit(session, fit, subject.below)
    state = fitting.state_of(fit, fitted.params, fitted.values)
    for evaluation in fit.evaluations:
        params = task.own(state).params
        evaluate.evaluate(session, fit, evaluation, params, consts, state.values, fitted.temperature)


def _reference(device: str) -> Callable[[], None]:
    """Return a fixed workload of the kind of a small fit: products and elementwise work on one thread.

    Raise ``REFERENCE`` when it changes, because times beside another workload cannot be compared.
    """
    generator = torch.Generator().manual_seed(0)
    x, weight, wide = (
        torch.randn(shape, generator=generator).to(device) for shape in ((64, 256), (256, 256), (4096, 256))
    )

    def work() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        y = x
        for _ in range(20):
            y = x + torch.nn.functional.gelu(y @ weight / 16).softmax(1)
        (wide @ weight).mul_(0.01).exp_().sum()
        torch.set_num_threads(threads)

    return work


def _spent(session: Session, work: Callable[[], None], least: float) -> Spent:
    """Return the seconds of one call, from as many calls as take ``least`` seconds on the clock.

    On a processor they are the mean, because other jobs interrupt long calls and pass by most short ones. On
    a GPU they are the smallest, because what disturbs there only adds.
    """
    on_gpu = session.device.startswith("cuda")
    cpu: list[float] = []
    wall: list[float] = []
    while sum(wall) < least or not wall:
        began = time.process_time(), time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize(session.device)
        cpu.append(time.process_time() - began[0])
        wall.append(time.perf_counter() - began[1])
    return (min(cpu), min(wall)) if on_gpu else (sum(cpu) / len(cpu), sum(wall) / len(wall))


def _timing(subject: _Subject, session: Session) -> Timing:
    """Return the repeats of a cell. On a GPU the processor's seconds are left out: it mostly waits."""
    cpu, wall = (
        tuple(Repeat(*(spent[clock] for spent in repeat)) for repeat in subject.repeats) for clock in (0, 1)
    )
    return Timing(wall, () if session.device.startswith("cuda") else cpu)
