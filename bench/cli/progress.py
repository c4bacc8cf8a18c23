"""Show the progress of a run: on a terminal a bar with the stage and the time left, else plain lines."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from bench.cli.live import Doing, Live
from bench.cli.pace import Learnt, Pace
from bench.cli.plan_view import duration
from bench.names import counted
from bench.run.outcome import Ended, Now

_EVERY = 10.0  # least seconds between two lines of a stage
_AT_MOST = 60.0  # most seconds between two lines of a stage, however slow it is


class Board(Live):
    """The progress of a run: its stage and the cells as they finish; use it as a context manager."""

    def __init__(
        self,
        todo: int,
        pace: Pace,
        clock: Callable[[], float] = time.monotonic,
        deadline: float | None = None,
    ) -> None:
        """Begin with ``todo`` cells left. ``deadline``: time of ``clock`` after which no cell starts."""
        super().__init__(
            Doing(table_column=Column(ratio=1, no_wrap=True)),
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
        self.line = ("", 0.0, 0)  # the stage of the last line, its time, and the images that it named
        self.ended = False  # whether a cell is finished; until then every stage gets a line
        self.end: float | None = None  # time of the clock at which the run is expected to end

    def watch(self, now: Now) -> None:
        """Show what the run is at; while images are encoded, their number and rate too."""
        if not now.total:
            self._show(now.what)
            if now.what and not (self.live or self.ended or now.what == self.line[0]):
                self.line = now.what, self.clock(), 0
                self.say(f"{now.what}  ({self._times()})")
            return
        self.pace.image(now.done)
        rate = self.pace.rate()
        said = f"{now.what}: {now.done:,} of {now.total:,} images" + (
            f", {rate:.0f} a second" if rate else ""
        )
        self._show(said)
        stage, at, done = self.line
        since = self.clock() - at
        due = since >= _AT_MOST or (since >= _EVERY and now.done - done >= now.total / 10)
        if not self.live and (now.done == 0 or stage != now.what or due):
            self.line = now.what, self.clock(), now.done
            self.say(f"{said}  ({self._times()})")

    def advance(self, cell: Ended, done: int, total: int) -> None:
        """Show that one more cell is finished."""
        self.pace.cell(cell.key, cell.seconds)
        self.ended = True
        self._show(cell.said)
        if self.live:
            self.progress.update(self.bar, advance=1)
        if cell.failed or not self.live:  # a failure names its record, so its line stays above the bar
            self.say(f"[{done}/{total}] {cell.said}  ({self._times()})")
        if learnt := self.pace.learnt():
            self.say(_correction(learnt))

    def left(self) -> str:
        """Return the time left in words; empty before there is enough to estimate by."""
        return "" if self.end is None else f"about {clock_text(max(0.0, self.end - self.clock()))} left"

    def _show(self, what: str) -> None:
        """Show what the run is at, and estimate again when it will end."""
        seconds = self.pace.seconds()
        self.end = None if seconds is None else self.clock() + seconds
        if self.end is not None and self.deadline is not None:
            self.end = min(self.end, self.deadline)
        if self.live:
            self.progress.update(self.bar, description=what)

    def _times(self) -> str:
        return ", ".join(filter(None, [clock_text(self.clock() - self.began), self.left()]))


def _correction(learnt: Learnt) -> str:
    """Return in words how the first cells correct the plan's estimate."""
    return (
        f"the first {counted(learnt.cells, 'cell')} took {duration(learnt.spent)}: "
        f"fitting and evaluating take about {duration(learnt.whole)}, "
        f"{learnt.whole / max(learnt.told, 1e-9):.2g} times what the plan says; "
        f"about {duration(learnt.left)} of it left"
    )


class _Left(ProgressColumn):
    """The column with the time left, counted down between two estimates."""

    def __init__(self, board: Board) -> None:
        super().__init__(Column(width=len("about 1:00:00 left"), no_wrap=True))
        self.board = board

    def render(self, task: Task) -> Text:
        return Text(self.board.left())


def clock_text(seconds: float) -> str:
    """Return a duration as minutes and seconds, with hours if there are any: 0:07, 12:30, 1:02:30."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
