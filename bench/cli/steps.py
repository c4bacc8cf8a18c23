"""Progress through a few long steps, or through many files: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn

from bench.cli.live import Live, Said

_EVERY = 10.0  # seconds between lines of many small steps
_SOON = 1.0  # seconds after which work is no longer done at once


class Steps(Live):
    """Shows which step is at work; use as a context."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        columns = (Said(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        super().__init__(*columns, text=name, clock=clock)
        self.name, self.said = name, self.began
        self.waits: threading.Timer | None = None

    def step(self, what: str, done: int, total: int) -> None:
        """What is at work now, after ``done`` of ``total`` long steps: each has its line."""
        if self.live:
            self.progress.update(self.bar, completed=done, total=total, description=f"{self.name}: {what}")
        else:
            self.said = self.clock()
            self.say(f"{self.name}: {what} [{done}/{total}]  ({self.said - self.began:.0f} s)")

    def soon(self, what: str, done: int, total: int) -> None:
        """As ``count``, and the first step has its line where all are not over within a second."""
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
        """``done`` of ``total`` small steps are done: a line every ten seconds, none of what is soon over."""
        if self.live or self.clock() - self.said >= _EVERY:
            self.step(what, done, total)
