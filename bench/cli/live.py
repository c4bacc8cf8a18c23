"""A bar on standard error where that is a terminal; elsewhere who shows it prints plain lines there."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task
from rich.text import Text

from bench.cli import streams
from bench.names import shown


class _Plain(Console):
    """A console that prints texts as they are: no markup, no emoji codes, nothing that steers a terminal.

    What others write to the standard streams while a bar is there comes through it too.
    """

    def print(self, *objects: Any, **how: Any) -> None:
        """As usual."""
        texts = (Text(shown(str(o), keep="\n")) if isinstance(o, str | Text) else o for o in objects)
        super().print(*texts, **how)


class Said(ProgressColumn):
    """What a bar is at, on one line: names of methods, datasets and files are in it."""

    def render(self, task: Task) -> Text:
        """The text."""
        return Text(shown(task.description))


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
        console = _Plain(file=streams.unguarded(sys.stderr), markup=False, emoji=False, highlight=False)
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
            self.progress.console.print(line, soft_wrap=True)  # a path that is broken cannot be copied
        else:
            print(shown(line, keep="\n"), file=sys.stderr, flush=True)
