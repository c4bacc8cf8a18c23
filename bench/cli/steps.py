"""Show progress through a few long steps or many files: as a bar on a terminal, else as plain lines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn

from bench.cli.live import Doing, Live

_EVERY = 10.0  # seconds between two lines about small steps
_SOON = 1.0  # seconds that work may take before its first line is printed


class Steps(Live):
    """The progress of a verb; use it as a context manager."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        columns = (Doing(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        super().__init__(*columns, text=name, clock=clock)
        self.name, self.said = name, self.began
        self.waits: threading.Timer | None = None

    def step(self, what: str, done: int, total: int) -> None:
        """Show the step ``what``, after ``done`` of ``total`` long steps. Every long step gets a line."""
        if self.live:
            self.progress.update(self.bar, completed=done, total=total, description=f"{self.name}: {what}")
        else:
            self.said = self.clock()
            self.say(f"{self.name}: {what} [{done}/{total}]  ({self.said - self.began:.0f} s)")

    def soon(self, what: str, done: int, total: int) -> None:
        """Do as ``count`` does, but print the first step too if the work takes more than a second."""
        if done == 0 and not self.live:
            self.waits = threading.Timer(_SOON, self.step, (what, done, total))
            self.waits.daemon = True
            self.waits.start()
        else:
            self.count(what, done, total)

    def __exit__(self, *error: Any) -> None:
        if self.waits:
            self.waits.cancel()
        super().__exit__(*error)

    def count(self, what: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` small steps are done, at most once in ten seconds."""
        if self.live or self.clock() - self.said >= _EVERY:
            self.step(what, done, total)
