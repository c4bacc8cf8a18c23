"""Progress of a run: a bar with counts and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Board:
    """Shows cells as they finish; use as a context."""

    def __init__(self, todo: int) -> None:
        self.todo = todo
        self.done = 0
        self.began = time.monotonic()
        self.live = sys.stderr.isatty()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self.bar = self.progress.add_task("cells", total=todo)

    def __enter__(self) -> Board:
        if self.live:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.progress.stop()

    def say(self, line: str) -> None:
        """One line for the user, above the bar."""
        if self.live:
            self.progress.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def advance(self, what: str, done: int, total: int) -> None:
        """One more cell is complete."""
        self.done += 1
        if self.live:
            self.progress.update(self.bar, advance=1, description=what)
            return
        spent = time.monotonic() - self.began
        left = spent / self.done * (self.todo - self.done)
        print(
            f"[{done}/{total}] {what}  ({_clock(spent)}, about {_clock(left)} left)",
            file=sys.stderr,
            flush=True,
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
