"""Progress of a run: a bar with the stage and the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from bench.cli.live import Live, Said
from bench.cli.pace import Learnt, Pace
from bench.cli.plan_view import duration
from bench.run.outcome import Ended, Now

_EVERY, _AT_MOST = 10.0, 60.0  # seconds between lines of one stage: at least, and where it is slow at most


class Board(Live):
    """Shows what a run is at and the cells as they finish; use as a context."""

    def __init__(
        self,
        todo: int,
        pace: Pace,
        clock: Callable[[], float] = time.monotonic,
        deadline: float | None = None,
    ) -> None:
        """``todo``: cells that are left. ``deadline``: by the clock, after which no cell starts."""
        super().__init__(
            Said(table_column=Column(ratio=1, no_wrap=True)),
            BarColumn(10, table_column=Column(width=10)),
            TextColumn(
                "{task.completed}/{task.total} cells", table_column=Column(width=2 * len(str(todo)) + 7)
            ),
            TimeElapsedColumn(table_column=Column(width=7)),
            _Left(self),
            text="starting",
            total=todo,
            expand=True,
            clock=clock,
        )
        self.pace, self.deadline = pace, deadline
        self.line = ("", 0.0, 0)  # the last line of a stage: which, when, and how many images it said
        self.ended = False  # whether a cell is done: before, every stage has a line
        self.end: float | None = None  # when the run will be done, by the clock

    def watch(self, now: Now) -> None:
        """What the run is at; where that is images, their number and rate."""
        if not now.total:
            self._judge(now.what)
            if now.what and not (self.live or self.ended or now.what == self.line[0]):
                self.line = now.what, self.clock(), 0
                self.say(f"{now.what}  ({self._times()})")
            return
        self.pace.image(now.done)
        rate = self.pace.rate()
        said = f"{now.what}: {now.done:,} of {now.total:,} images" + (
            f", {rate:.0f} a second" if rate else ""
        )
        self._judge(said)
        stage, at, done = self.line
        since = self.clock() - at
        due = since >= _AT_MOST or (since >= _EVERY and now.done - done >= now.total / 10)
        if not self.live and (now.done == 0 or stage != now.what or due):
            self.line = now.what, self.clock(), now.done
            self.say(f"{said}  ({self._times()})")

    def advance(self, cell: Ended, done: int, total: int) -> None:
        """One more cell is complete."""
        self.pace.cell(cell.key, cell.seconds)
        self.ended = True
        self._judge(cell.said)
        if self.live:
            self.progress.update(self.bar, advance=1)
        if cell.failed or not self.live:  # a failure names its record, so its line stays above the bar
            self.say(f"[{done}/{total}] {cell.said}  ({self._times()})")
        if learnt := self.pace.learnt():
            self.say(_said(learnt))

    def left(self) -> str:
        """The time left in words, empty before there is something to judge by."""
        return "" if self.end is None else f"about {clock_text(max(0.0, self.end - self.clock()))} left"

    def _judge(self, what: str) -> None:
        """Show what the run is at, and judge anew when it will be done."""
        seconds = self.pace.seconds()
        self.end = None if seconds is None else self.clock() + seconds
        if self.end is not None and self.deadline is not None:
            self.end = min(self.end, self.deadline)
        if self.live:
            self.progress.update(self.bar, description=what)

    def _times(self) -> str:
        return ", ".join(filter(None, [clock_text(self.clock() - self.began), self.left()]))


def _said(learnt: Learnt) -> str:
    """What the first cells say of the plan's estimate, in words."""
    return (
        f"the first {learnt.cells} cells took {duration(learnt.spent)}: fitting and evaluating take about "
        f"{duration(learnt.whole)}, {learnt.whole / max(learnt.told, 1e-9):.2g} times what the plan says; "
        f"about {duration(learnt.left)} of it left"
    )


class _Left(ProgressColumn):
    """The time left, counted down between two judgements."""

    def __init__(self, board: Board) -> None:
        super().__init__(Column(width=len("about 1:00:00 left"), no_wrap=True))
        self.board = board

    def render(self, task: Task) -> Text:
        return Text(self.board.left())


def clock_text(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any: 0:07, 12:30, 1:02:30."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
