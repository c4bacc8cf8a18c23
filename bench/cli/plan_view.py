"""Print the plan of ``bench run`` before it works, and the outcome afterwards."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bench.cli import say
from bench.cli.codes import Code
from bench.names import counted, few

if TYPE_CHECKING:
    from bench.data.spec import DatasetSpec
    from bench.plan.cells import Plan
    from bench.plan.cost import Device
    from bench.plan.earlier import Earlier
    from bench.plan.todo import Fresh, Todo
    from bench.records.conditions import Conditions
    from bench.records.whole import Bad
    from bench.run.outcome import Outcome

_SHOWN = 12  # blocked and failed cells that are printed one by one; of more, only the number is


def show(
    plan: Plan, todo: list[Todo], complete: int, earlier: Earlier, device: str, dense_cache: bool = True
) -> tuple[float | None, Device | None]:
    """Print the plan: cells to do, done and blocked, with reasons, notes and an estimate of the time.

    ``device``: where the run computes, as in ``cuda:0``, never ``auto``. Return the estimated seconds, summed
    over processes (None without an estimate), and the device's limits if they were measured.
    """
    from bench.cli import reading
    from bench.plan import estimate
    from bench.plan.cells import chain
    from bench.plan.why import drifted, elsewhere, shadowed

    fits = Counter(t.fit.cell.method for t in todo)
    expected: float | None = None
    roof: Device | None = None
    on = device.partition(":")[0]
    others = elsewhere(plan, todo, on)
    recorded = ", ".join(f"{n} of them on {on}" for on, n in sorted(others.items()))
    done = f"{complete} done" + (f" ({recorded})" if recorded else "")
    say.echo(
        f"plan: {counted(len(todo), 'cell')} to do, {done}, {len(plan.blocked)} blocked; "
        f"records in {earlier.results / 'runs'}"
    )
    if todo:
        say.echo("  to do: " + ", ".join(f"{name} {n}" for name, n in fits.items()))
        size = estimate.disk(todo, dense_cache)
        disk = f"at most {_size(size)}" if size else "no space"
        say.echo(f"  features take {disk} on disk; fitted states are kept beside the records")
        expected = estimate.seconds(earlier, todo, on)
        if expected is not None:
            say.echo(f"  estimate from earlier records: {duration(expected)}, encoding not counted")
        elif roof := _limits(device):
            expected = estimate.least(todo, roof)
            say.echo(
                f"  estimate: at least {duration(expected)} of training, encoding not counted. There are no "
                f"{on} records yet, so this lower bound comes from the measured speed of {roof.name} "
                f"({roof.flops / 1e9:,.0f} GFLOP/s, {roof.bytes / 1e9:,.0f} GB/s)"
            )
    read = (d for f in plan.fits for d in (f.dataset, *(e.target for e in f.evaluations)))
    datasets = {(d.whole or d).digest: d for d in read}.values()  # the folds of a dataset are read once
    for line in filter(None, map(reading.line, datasets)):
        say.echo(f"  {line}")
    said = {
        (fit.dataset.name, note)
        for t in todo
        for fit in chain(t.fit)
        for note in (*fit.dataset.notes, fit.draw.note, *fit.notes)
        if note
    }
    said |= {(d.name, note) for d in datasets if reading.line(d) for note in d.notes}  # done or not
    for notes in sorted(said):
        say.echo(f"  note on {notes[0]}: {notes[1]}")
    for dataset, first, same in sorted(plan.equal):
        say.echo(
            f"  note on {dataset}: prompt sets {first} and {same} have the same texts; "
            f"a method that uses both is recorded once, as {first}"
        )
    for kind, first, same in sorted(plan.twins):
        say.secho(
            f"  note: {kind} {same} is the same as {first}, under another name; recorded once, as {first}",
            fg="yellow",
        )
    if older := shadowed(plan, earlier):
        say.secho(
            f"  tables hide {older} of these cells, because newer records have the same coordinates and "
            "settings (made with other weights, for example); --fresh runs them again",
            fg="yellow",
        )
    if changed := drifted(plan):
        names = ", ".join(line.partition(":")[0] for line in changed)
        say.secho(
            f"  drifted since they were recorded: the code of {names} changed, the version did not "
            "(--dry-run --why says more)",
            fg="yellow",
        )
    tiny = sorted(
        {
            t.fit.backbone.name
            for t in todo
            if t.fit.backbone.preset == "quick" and not embedded(t.fit.dataset.spec)
        }
    )
    if tiny:
        say.secho(
            f"  warning: {', '.join(tiny)} knows drawings only; its numbers on other images say little",
            fg="yellow",
        )
    for blocked in plan.blocked[:_SHOWN]:
        say.secho(f"  blocked: {blocked.method} on {blocked.dataset}: {blocked.reason}", fg="yellow")
    if len(plan.blocked) > _SHOWN:
        say.secho(f"  and {len(plan.blocked) - _SHOWN} more blocked", fg="yellow")
    return expected, roof


def _limits(device: str) -> Device | None:
    """Measure the device's limits and return them; print why and return None if they cannot be measured."""
    from bench.errors import BenchError
    from bench.run import limits

    try:
        return limits.of(device)
    except BenchError as error:
        say.secho(f"  no estimate, because there are no {device} records yet and {error}", fg="yellow")
        return None


def _size(count: int) -> str:
    if count < 1e5:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """Return a duration in words, as in ``90 seconds``, ``12 minutes`` or ``2.5 hours``."""
    if seconds < 120:
        return f"{seconds:.0f} seconds" if seconds >= 2 else "a second"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def embedded(spec: DatasetSpec) -> bool:
    """Return whether a dataset's images come with the program."""
    from bench.data.catalog import READERS

    return READERS.get(spec.reader, "").startswith("bench.pocket.")


def show_why(plan: Plan, todo: list[Todo], earlier: Earlier, fresh: Fresh) -> None:
    """Print a line for each cell to do, with the reason, and one for each method whose code drifted."""
    from bench.plan.why import drifted, reasons

    for line in (*reasons(todo, earlier, fresh), *drifted(plan)):
        say.echo(f"  {line}")


def show_logits(plan: Plan, todo: list[Todo]) -> None:
    """Print what ``--keep-logits`` takes on disk, and how many recorded evaluations have no logits."""
    from bench.plan.estimate import logits_disk
    from bench.plan.todo import without

    if size := logits_disk(todo):
        say.echo(f"  logits take at most {_size(size)} on disk beside the records")
    if lacking := without(plan, todo, "logits"):
        say.secho(
            f"  note: {counted(lacking, 'recorded evaluation has', 'recorded evaluations have')} no logits; "
            "--keep-logits adds none to them: run them again with --fresh",
            fg="yellow",
        )


def show_bad(bad: list[Bad]) -> None:
    """Print which records are damaged or incomplete; their cells are to do again."""
    from bench.records.whole import said

    if bad:
        many = (
            f"{len(bad)} records are damaged or incomplete, so their cells run again"
            if bad[1:]
            else "a record is damaged or incomplete, so its cell runs again"
        )
        say.secho(f"  note: {many}: {said(bad)}", fg="yellow")


def show_precisions(plan: Plan, earlier: Earlier, chosen: str) -> None:
    """Print a note if the cells are recorded in another precision than the one that ``auto`` chose."""
    from bench.records.keys import PRECISIONS, dtype
    from bench.records.types import FitRecord

    asked = {fit.cell for fit in plan.fits if fit.asked}
    for precision in PRECISIONS:
        recorded = {
            record.cell
            for record in earlier.records
            if isinstance(record, FitRecord) and record.parts.encode_dtype == dtype(precision)
        }
        if precision != chosen and (found := asked & recorded):
            say.secho(
                f"  note: none of these cells is recorded in {chosen}, but {len(found)} in {precision}: "
                f"--precision {precision} continues with those",
                fg="yellow",
            )


def show_idle(plan: Plan, complete: int) -> Code:
    """Print why there is nothing to do, all recorded or all blocked, and return the exit code."""
    if complete:
        those = f"all {complete} cells were" if complete > 1 else "1 cell was"
        say.echo(f"done: {those} recorded before; 0 encodes, 0 steps" + _blocked(plan))
        return Code.FAILED if any(b.failed for b in plan.blocked) else Code.GOOD
    reason = (
        "see the reasons above" if plan.blocked else "no cell has these methods, shots, seeds and prompts"
    )
    say.secho(f"bench: nothing can run; {reason}", err=True, fg="red")
    return Code.REFUSED


def _blocked(plan: Plan) -> str:
    return f"; {len(plan.blocked)} blocked" if plan.blocked else ""


def show_outcome(outcome: Outcome, before: set[tuple[str, Conditions]], plan: Plan) -> Code:
    """Print what was done, the failures, and whether the records mix conditions, and return the exit code.

    ``before``: the conditions of earlier records. A failure decides the exit code before cells that are left:
    a failure needs a person, and cells that are left need only the same command again.
    """
    from bench.records.conditions import mixed

    cells = f"{counted(outcome.cells, 'cell')}, {outcome.resumed} of them recorded before"
    if outcome.left:
        ended = f"{outcome.cells - outcome.left} of {counted(outcome.cells, 'cell')}, {outcome.left} left"
        cells = f"{ended}, {outcome.resumed} recorded before"
    say.echo(
        f"done: {cells}; {counted(outcome.fits, 'fit')}, {counted(outcome.evaluations, 'evaluation')}, "
        f"{counted(outcome.encodes, 'encode')}, {counted(outcome.steps, 'step')}"
        + (f"; {len(outcome.failures)} failed" if outcome.failures else "")
        + _blocked(plan)
    )
    if outcome.out_of_time:
        say.secho("the time budget is spent; the same command goes on from here", fg="yellow")
    for what in outcome.stopped.values():
        say.secho(f"  stopped, because it ran on after the budget's end: {what}", fg="yellow")
    backbones = sorted({backbone for backbone, _ in outcome.conditions})
    every = {b: mixed(c for name, c in before | outcome.conditions if name == b) for b in backbones}
    if differing := [f"{differs} ({backbone})" for backbone, differs in every.items() if differs]:
        what = "; ".join(differing)
        say.secho(
            f"mixed conditions, which may change numbers by rounding: {what} (--fresh runs all cells again)",
            fg="yellow",
        )
    for cell, message, record in outcome.failures[:_SHOWN]:
        where = f"\n    its record, with the traceback: {record}" if record else ""
        say.secho(f"  failed: {cell}: {message}{where}", err=True, fg="red")
    if rest := outcome.failures[_SHOWN:]:
        folders = sorted({str(failed.record.parent) for failed in rest if failed.record})
        where = f"; their records are in {few(folders)}" if folders else ""
        say.secho(f"  and {len(rest)} more failed{where}", err=True, fg="red")
    if outcome.failures or any(b.failed for b in plan.blocked):
        return Code.FAILED
    return Code.INCOMPLETE if outcome.left else Code.GOOD
