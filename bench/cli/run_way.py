"""Choose where ``bench run`` does its work: in this process, in several, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.cli.progress import Board
    from bench.executors.loop import Way
    from bench.executors.worker import Setup
    from bench.plan.cells import Plan
    from bench.plan.earlier import Earlier
    from bench.plan.estimate import Guess
    from bench.plan.request import Request
    from bench.plan.todo import Fresh, Todo
    from bench.registry import Registry
    from bench.run.desk import Desk


@dataclass(frozen=True)
class How:
    """How cells are run; most fields are the options of ``bench run`` of the same names.

    ``kind``: the kind of device, ``cpu`` or ``cuda``. ``anew``: which records do not count as done. No cell
    starts after ``deadline`` and none runs after ``stop``; both are times of ``time.monotonic``.
    """

    device: str
    cache: Path | None
    plugins: tuple[Path, ...]
    workers: int | None
    dense_cache: bool
    keep_logits: bool
    keep_states: str
    executor: str
    ray_address: str | None
    jobs: int | None
    join: bool | None
    kind: str
    anew: Fresh
    deadline: float | None
    stop: float | None


@dataclass(frozen=True)
class Work:
    """A plan and the cells of it that are left.

    ``complete``: number of requested cells that are done. ``guesses``: the guessed cost of each cell that is
    left, by fit key. ``expected``: the plan's estimate in seconds, None if it printed none.
    """

    request: Request
    registry: Registry
    plan: Plan
    todo: list[Todo]
    complete: int
    earlier: Earlier
    guesses: Mapping[str, Guess]
    expected: float | None


def of(desk: Desk, work: Work, how: How, board: Board) -> tuple[Way, int]:
    """Return the executor that runs the cells, and how many cells it runs at a time."""
    seconds = {key: guess.seconds for key, guess in work.guesses.items()}
    if how.executor == "ray":
        from bench.executors.on_ray import OnRay

        on_ray = OnRay(_setup(desk, work, how), how.ray_address, board.say, how.stop, seconds)
        return on_ray, on_ray.slots
    jobs = how.jobs or usual_jobs(desk, work)
    if jobs > 1:
        from bench.executors.processes import Processes

        if not how.jobs:
            board.say(f"{jobs} processes fit side by side; --jobs 1 for one")
        return Processes(_setup(desk, work, how), jobs, board.watch, seconds, live=board.live), jobs
    from bench.executors.serial import Serial

    return Serial(desk), 1


def usual_jobs(desk: Desk, work: Work) -> int:
    """Return how many processes the work is worth.

    The number follows from what the work would take on a usual processor, and never from a measured time: a
    worker has one thread, the number of threads can change last digits, and equal commands must give equal
    numbers.
    """
    from bench.executors import processes
    from bench.plan import estimate, rounds

    seconds = estimate.usual(work.todo)
    parts = rounds.apart(work.todo, not desk.session.dense_cache, desk.join, seconds)
    return processes.default_jobs(desk.session.device, parts)


def _setup(desk: Desk, work: Work, how: How) -> Setup:
    """Return what other processes need so that they run cells as this one would."""
    from bench.executors.worker import Setup

    return Setup(
        request=replace(work.request, contents=work.plan.contents),
        plugins=how.plugins,
        device=desk.session.device,
        cache=how.cache,
        keep_states=how.keep_states,
        fresh=how.anew,
        dense_cache=how.dense_cache,
        keep_logits=how.keep_logits,
        join=desk.join,
        clock=replace(desk.recorder.clock),
    )
