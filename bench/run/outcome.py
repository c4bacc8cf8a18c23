"""Count what a run does, and describe what it is doing now.

``Outcome`` is the count, ``Now`` the present work, and ``Ended`` one cell that is done or has failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench.records.conditions import Conditions


@dataclass(frozen=True)
class Now:
    """What a process does now, in words. While it encodes: images done, and images in all."""

    what: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Ended:
    """A cell that is done or has failed: its fit key, a line about it, and the seconds that it took.

    ``seconds`` is None if the time of the next cells cannot be judged by it: for a cell that never began, and
    for the first cell of a process, whose time includes loading. ``failed``: whether the cell, or an
    evaluation of it, failed.
    """

    key: str
    said: str
    seconds: float | None = None
    failed: bool = False


Watch = Callable[[Now], None]
Progress = Callable[[Ended, int, int], None]  # (a cell, cells done, cells in all)


def unwatched(now: Now) -> None:
    """Do nothing with the news of what a process does."""


class Failed(NamedTuple):
    """A failed cell: its label, its error in one line, and the path of its record, if one was written."""

    cell: str
    message: str
    record: Path | None


@dataclass
class Outcome:
    """Counts of what was done, the failures, and the conditions of the new records, by backbone.

    ``cells``: how many were asked for. ``resumed``: how many were recorded before. ``left``: how many did not
    begin or did not end. ``stopped``: by fit key, the work that was going on when the grace period after a
    time budget was over.
    """

    cells: int = 0
    resumed: int = 0
    left: int = 0
    fits: int = 0
    evaluations: int = 0
    encodes: int = 0
    steps: int = 0
    failures: list[Failed] = field(default_factory=list)
    conditions: set[tuple[str, Conditions]] = field(default_factory=set)
    out_of_time: bool = False
    stopped: dict[str, str] = field(default_factory=dict)

    def take(self) -> Outcome:
        """Return what was counted since the last call, and begin to count again from zero."""
        part = Outcome()
        part.add(self)
        self.fits = self.evaluations = self.encodes = self.steps = 0
        self.failures, self.conditions, self.stopped = [], set(), {}
        return part

    def add(self, other: Outcome) -> None:
        """Add what another process counted."""
        for name in ("fits", "evaluations", "encodes", "steps"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failures += other.failures
        self.conditions |= other.conditions
        self.out_of_time |= other.out_of_time
        self.stopped |= other.stopped
