"""A bar on standard error where that is a terminal; elsewhere who shows it prints plain lines there."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, ProgressColumn


class Live:
    """What is going on; use as a context. ``live``: whether it is a bar."""

    def __init__(
        self,
        *columns: ProgressColumn,
        text: str,
        total: int | None = None,
        expand: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock, self.began = clock, clock()
        self.live = sys.stderr.isatty()
        console = Console(stderr=True)
        self.progress = Progress(*columns, console=console, transient=True, expand=expand)
        self.bar = self.progress.add_task(text, total=total)

    def __enter__(self) -> Self:
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
