"""Do what is left of a plan, in one loop that all executors share.

The executors (``serial``, ``processes``, ``on_ray``) differ only in their ``Way``: how portions of cells are
submitted and how their results are collected.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from bench.executors.budget import OutOfTime, alarm
from bench.plan.cells import Plan, label
from bench.plan.todo import Todo
from bench.run.desk import Desk
from bench.run.outcome import Ended, Outcome, Progress


@dataclass
class Done:
    """What became of a portion, or of some of its cells.

    ``ended``: the cells that ended. ``outcome``: what another process counted while it did them.
    ``messages``: lines for the user. ``failed``: cells whose failure nobody has recorded yet, each with its
    error.
    """

    ended: list[Ended] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)
    messages: list[str] = field(default_factory=list)
    failed: list[tuple[Todo, Exception]] = field(default_factory=list)

    def add(self, other: Done) -> None:
        """Add a later result."""
        self.ended += other.ended
        self.outcome.add(other.outcome)
        self.messages += other.messages
        self.failed += other.failed


class Way(Protocol):
    """A way to get portions of cells done.

    ``encodes``: whether the loop brings a portion's features into the store before it submits the portion.
    ``elsewhere``: whether other processes do the cells, so that this one needs its model for encoding alone.
    """

    encodes: bool
    elsewhere: bool

    def portions(self, todo: list[Todo]) -> Iterable[list[Todo]]:
        """Divide what is left to do into portions, each of which is submitted as a whole.

        The call may already start workers.
        """

    def room(self) -> bool:
        """Return whether another portion may be submitted now."""

    def busy(self) -> bool:
        """Return whether anything was submitted and not collected yet."""

    def submit(self, portion: list[Todo], deadline: float | None) -> None:
        """Begin a portion, of which no cell starts after ``deadline`` (time.monotonic)."""

    def collect(self) -> Iterator[Done]:
        """Wait until a submitted cell has ended, and yield at least one result."""

    def finish(self) -> Iterator[Done]:
        """Make the evaluations that still wait, and yield their results.

        Evaluations wait for others that need the same pass over the images. Nothing is submitted any more.
        """

    def stop(self) -> Done:
        """Stop the work and return what had ended before.

        ``outcome.stopped`` names the cells that had not ended.
        """

    def end(self) -> None:
        """Release processes, connections and folders, also after an error."""


def run(
    desk: Desk,
    plan: Plan,
    todo: list[Todo],
    way: Way,
    progress: Progress,
    deadline: float | None = None,
    images: Callable[[int | None], None] | None = None,
    stop: float | None = None,
) -> Outcome:
    """Do all of ``todo``. No cell starts after ``deadline``, and none runs after ``stop``.

    Both are times of time.monotonic. A stopped cell leaves no record: the outcome names it, and the next run
    does it. ``images`` is called before the first cell with the number of passes through the image tower
    that this process will make (None: unknown).
    """
    outcome = desk.outcome
    outcome.cells = len([fit for fit in plan.fits if fit.asked])
    outcome.resumed = done = outcome.cells - len(todo)
    encoding: list[Todo] = []

    def say(ended: Ended) -> None:
        nonlocal done
        done += 1
        progress(ended, done, outcome.cells)

    def failed(t: Todo, error: Exception) -> None:
        say(Ended(t.fit.key, desk.recorder.failure(t, error), failed=True))

    def hear(part: Done) -> None:
        outcome.add(part.outcome)
        for message in part.messages:
            desk.session.report(message)
        for ended in part.ended:
            say(ended)
        for t, error in part.failed:
            failed(t, error)

    def work() -> None:
        nonlocal encoding
        waiting = deque(way.portions(todo))  # first, so that workers start while this process encodes
        desk.encoder.begin(todo)
        if images is not None:
            images(desk.encoder.lacking(todo) if way.encodes else None)
        while waiting or way.busy():
            while waiting and way.room():
                if deadline is not None and time.monotonic() > deadline:
                    outcome.out_of_time = True
                    waiting.clear()
                    break
                portion = waiting.popleft()
                if way.encodes:
                    encoding = portion
                    encoded = desk.encoder.encode(portion)
                    encoding = []
                    outcome.encodes += encoded.encodes
                    for t, error in encoded.stopped:
                        failed(t, error)
                    portion = encoded.ready
                    if way.elsewhere:
                        desk.session.release(models=not waiting)
                if portion:
                    desk.note(portion)
                    way.submit(portion, deadline)
            if not way.busy():
                break
            for part in way.collect():
                hear(part)
        for part in way.finish():
            hear(part)

    try:
        with alarm(stop):
            work()
    except OutOfTime:
        outcome.out_of_time = True
        hear(way.stop())
        if encoding:
            outcome.stopped[encoding[0].fit.key] = f"encoding for {label(encoding[0].fit)}"
        for t in todo:
            if t.fit.key in outcome.stopped:
                desk.recorder.stopped(t.fit)
    finally:
        way.end()
    outcome.left = outcome.cells - done
    return outcome
