"""Progress through a few long steps: a bar on a terminal, plain lines elsewhere, both on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Steps:
    """Shows which of a few steps is at work; use as a context."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.began = time.monotonic()
        self.live = sys.stderr.isatty()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self.bar = self.progress.add_task(name, total=None)

    def __enter__(self) -> Steps:
        if self.live:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.progress.stop()

    def say(self, what: str, done: int, total: int) -> None:
        """What is at work now, after ``done`` of ``total`` steps."""
        if self.live:
            self.progress.update(self.bar, completed=done, total=total, description=f"{self.name}: {what}")
            return
        spent = time.monotonic() - self.began
        print(f"{self.name}: {what} [{done}/{total}]  ({spent:.0f} s)", file=sys.stderr, flush=True)
