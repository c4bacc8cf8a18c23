"""The serial executor does cells one after the other, in this process.

Workers of the other executors run their portions through it too.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from bench.executors import loop
from bench.executors.loop import Done
from bench.plan.cells import Plan, label
from bench.plan.rounds import rounds
from bench.plan.todo import Todo
from bench.run.desk import Desk
from bench.run.outcome import Ended, Outcome, Progress


class Serial:
    """A way whose portions are rounds: one seed of a dataset, or with ``join`` all its seeds."""

    encodes, elsewhere = True, False

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.portion: list[Todo] = []
        self.deadline: float | None = None
        self.left: Counter[str] = Counter()  # dataset's digest -> portions that were not submitted yet
        self.late: list[Ended] = []  # cells that were done; some evaluations may still wait for a pass

    def portions(self, todo: list[Todo]) -> list[list[Todo]]:
        """Return the rounds.

        If test features are streamed, the rounds of a dataset follow each other.
        """
        groups = [group for _, group in rounds(todo, not self.desk.session.dense_cache, self.desk.join)]
        self.left = Counter(_dataset(group) for group in groups)
        return groups

    def room(self) -> bool:
        """Return whether no portion waits, because this way does one at a time."""
        return not self.portion

    def busy(self) -> bool:
        """Return whether a portion waits to be done."""
        return bool(self.portion)

    def submit(self, portion: list[Todo], deadline: float | None) -> None:
        """Take a portion, which ``collect`` does."""
        self.portion, self.deadline = portion, deadline
        self.left[_dataset(portion)] -= 1

    def collect(self) -> Iterator[Done]:
        """Do the portion cell by cell.

        After a dataset's last portion, make the evaluations that wait for a pass over its images.
        """
        portion, self.portion = self.portion, []
        self.desk.states.begin(portion)
        for t in portion:
            if self.deadline is not None and time.monotonic() > self.deadline:
                self.desk.outcome.out_of_time = True
                return
            self.late.append(self.desk.do(t))
            yield self._ended()
        if not self.left[_dataset(portion)]:
            self.desk.evaluate()
            yield self._ended()

    def finish(self) -> Iterator[Done]:
        """Make the evaluations that still wait for a pass over their images."""
        self.desk.evaluate()
        yield self._ended()

    def stop(self) -> Done:
        """Return what ended. Cells that the desk is doing and cells that wait there count as stopped."""
        done = self._ended()
        cells = {t.fit.key: t for t in self.desk.at} | self.desk.waiting.cells()
        done.outcome.stopped |= {key: label(t.fit) for key, t in cells.items()}
        return done

    def _ended(self) -> Done:
        """Return the cells that were done and have no waiting evaluation, and forget them."""
        waiting = self.desk.waiting.cells()
        ended = [cell for cell in self.late if cell.key not in waiting]
        self.late = [cell for cell in self.late if cell.key in waiting]
        return Done(ended)

    def end(self) -> None:
        """Do nothing, because this way has no processes or connections."""


def _dataset(portion: list[Todo]) -> str:
    return portion[0].fit.dataset.digest


def run(
    desk: Desk,
    plan: Plan,
    todo: list[Todo],
    progress: Progress,
    deadline: float | None = None,
    stop: float | None = None,
) -> Outcome:
    """Do all of ``todo`` at this desk, which holds the fitted states afterwards.

    ``deadline`` and ``stop``: as in ``loop.run``.
    """
    return loop.run(desk, plan, todo, Serial(desk), progress, deadline, stop=stop)
