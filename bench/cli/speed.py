"""Time cells of a baseline: fit and evaluate each several times, between runs of a reference workload.

A round visits every cell, so that the repeats of a cell are spread over the whole measurement. Whatever slows
the machine for a while slows one repeat of every cell, and the reference workload beside it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bench.cli import say
from bench.errors import BenchError
from bench.lazy import torch
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
    """A cell that is timed: its fit, the states that the fit reads, and what was spent by repeat."""

    kept: Kept
    fit: Planned
    below: Mapping[str, State]
    before: list[Spent] = field(default_factory=list)
    work: list[Spent] = field(default_factory=list)
    after: list[Spent] = field(default_factory=list)


def compared(
    old: Sequence[Kept], plugins: tuple[Path, ...], where: Where, repeats: int, limit: float
) -> speed.Speed:
    """Time the cells of a baseline that have times, and compare. ``limit``: the largest ratio to accept."""
    times = measure(speed.timed(old), with_plugins(plugins), where, repeats, _say, speed.unlike)
    return speed.compare(old, times.new, times.why_not, limit)


def with_times(kept: Sequence[Kept], plugins: tuple[Path, ...], where: Where, repeats: int) -> list[Kept]:
    """Return cells that run here, one of each group with its times. Raises BenchError if one fails."""
    times = measure(speed.chosen(kept), with_plugins(plugins), where, repeats, _say)
    for identity, why in times.why_not.items():
        raise BenchError(f"the baseline is not written: {identity[0]} on {identity[1]}: {why}")
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
    # Each precision runs by itself, because an encoder tells backbones apart by their weights alone.
    for precision in sorted({where.precision or k.precision for k in kept}):
        some = [k for k in kept if precision == (where.precision or k.precision)]
        with tempfile.TemporaryDirectory(prefix="bench-speed-") as folder:
            elsewhere = replace(where, results=Path(folder))
            _measure(session, some, registry, elsewhere, repeats, unlike, precision, times)
    return times


def _measure(
    session: Session,
    kept: Sequence[Kept],
    registry: Registry,
    where: Where,
    repeats: int,
    unlike: Callable[[Kept, Kept], str],
    precision: str,
    times: Times,
) -> None:
    """Time cells of one precision, and add the results to ``times``."""
    subjects = _prepared(session, kept, registry, where, unlike, precision, times)
    reference = _reference(session.device)
    for turn in range(repeats):
        session.report(f"timing {len(subjects)} cells, repeat {turn + 1} of {repeats}")
        before = _spent(session, reference, _REFERENCE)
        for subject in list(subjects):
            if (work := _tried(session, subject, _WORK, times)) is None:
                subjects.remove(subject)
                continue
            after = _spent(session, reference, _REFERENCE)
            subject.before.append(before)
            subject.work.append(work)
            subject.after.append(after)
            before = after
    for subject in subjects:
        timing = _timing(subject, on_gpu=session.device.startswith("cuda"))
        times.new[subject.kept.identity] = replace(subject.kept, timing=timing)


def _prepared(
    session: Session,
    kept: Sequence[Kept],
    registry: Registry,
    where: Where,
    unlike: Callable[[Kept, Kept], str],
    precision: str,
    times: Times,
) -> list[_Subject]:
    """Encode what the cells read, fit each once, and return those that can be timed.

    The first fit of a process imports and compiles, so its time says nothing.
    """
    from bench.cli.rerun import plan_of
    from bench.plan.todo import remaining
    from bench.report.coordinates import CELL
    from bench.run import provenance, stages
    from bench.run.desk import Desk

    desk = Desk(session, registry, where.results, "none")
    todo, _ = remaining(plan_of(kept, registry, where))
    by_cell = {tuple(getattr(t.fit.cell, name) for name in CELL): t for t in todo if t.evaluations}
    subjects = []
    for old in kept:
        t = by_cell[old.identity[: len(CELL)]]
        with session.threads(t.fit.backbone):
            facts = provenance.of_run(session.device, t.fit.method)
        now = replace(old, machine=msgspec.to_builtins(facts), precision=precision)
        if why := unlike(old, now):
            times.why_not[old.identity] = why
            continue
        desk.encoder.begin([t])
        encoded = desk.encoder.encode([t])
        try:
            for _, error in encoded.stopped:
                raise error
            desk.states.begin([t])
            with session.threads(t.fit.backbone):
                subject = _Subject(now, t.fit, desk.states.below(t.fit))
        except Exception as error:
            times.why_not[old.identity] = f"it failed when it was timed: {stages.message(error)}"
            continue
        if _tried(session, subject, 0, times) is not None:
            subjects.append(subject)
    return subjects


def _tried(session: Session, subject: _Subject, least: float, times: Times) -> Spent | None:
    """Return what fitting and evaluating a cell takes; None if it fails, with the reason in ``times``."""
    from bench.run import stages

    def work() -> None:
        _fit_and_evaluate(session, subject)

    try:
        with session.threads(subject.fit.backbone):
            return _spent(session, work, least)
    except Exception as error:
        why = f"it failed when it was timed: {stages.message(error)}"
        times.why_not[subject.kept.identity] = why
        return None


def _fit_and_evaluate(session: Session, subject: _Subject) -> None:
    from bench.run import evaluate, task
    from bench.run import fit as fitting

    fit = subject.fit
    fitted, consts, _ = fitting.run_fit(session, fit, dict(subject.below))
    state = fitting.state_of(fit, fitted.params, fitted.values)
    for evaluation in fit.evaluations:
        evaluate.evaluate(session, fit, evaluation, task.own(state).params, consts, state.values)


def _reference(device: str) -> Callable[[], None]:
    """Return a fixed workload of the kind of a small fit: products of matrices and elementwise work."""
    generator = torch.Generator().manual_seed(0)
    x, weight, wide = (
        torch.randn(shape, generator=generator).to(device) for shape in ((64, 256), (256, 256), (4096, 256))
    )

    def work() -> None:
        y = x
        for _ in range(20):
            y = x + (torch.nn.functional.gelu(y @ weight / 16)).softmax(1)
        (wide @ weight).mul_(0.01).exp_().sum()

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


def _timing(subject: _Subject, on_gpu: bool) -> Timing:
    """Return the repeats of a cell. On a GPU the processor's seconds are left out: it mostly waits."""
    triples = list(zip(subject.work, subject.before, subject.after, strict=True))

    def repeats(clock: int) -> tuple[Repeat, ...]:
        return tuple(Repeat(w[clock], b[clock], a[clock]) for w, b, a in triples)

    return Timing(repeats(1), () if on_gpu else repeats(0))
