"""What ``bench run`` has to do, and the way: this process, several of this machine, or a Ray cluster."""

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
    """How cells are to be done, as the options of the same names ask for.

    ``kind``: of the device, ``cpu`` or ``cuda``. ``anew``: which records do not count. No cell starts after
    ``deadline`` and none runs after ``stop``, both times of time.monotonic.
    """

    device: str
    cache: Path | None
    plugins: tuple[Path, ...]
    workers: int | None
    dense_cache: bool
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
    """A plan and what is left to do of it; what each cell will take, and the seconds that the user was told.

    ``complete``: how many cells were asked for and are done.
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
    """The way that cells get done, and how many at a time."""
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
    """How many processes the work is worth: by what it would take on a usual processor, and by no clock.

    A worker has one thread, and the number of threads can change last digits: equal commands get equal ones.
    """
    from bench.executors import processes
    from bench.plan import estimate, rounds

    seconds = estimate.usual(work.todo)
    parts = rounds.apart(work.todo, not desk.session.dense_cache, desk.join, seconds)
    return processes.default_jobs(desk.session.device, parts)


def _setup(desk: Desk, work: Work, how: How) -> Setup:
    """What other processes need to do as this one would."""
    from bench.executors.worker import Setup

    return Setup(
        request=replace(work.request, contents=work.plan.contents),
        plugins=how.plugins,
        device=desk.session.device,
        cache=how.cache,
        keep_states=how.keep_states,
        fresh=how.anew,
        dense_cache=how.dense_cache,
        join=desk.join,
        clock=replace(desk.recorder.clock),
    )
