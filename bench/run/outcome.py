"""What a run did, counted as it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bench.records.conditions import Conditions


@dataclass(frozen=True)
class Now:
    """What a process is at, in words; where that is images, how many of them it has done, of how many."""

    what: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Ended:
    """A cell that is done or has failed: its fit key, what to say of it, and the seconds that it took.

    ``seconds`` is None where it says nothing of the next cells: of what never began, and of the first cell of
    a process, which pays for what is loaded then.
    """

    key: str
    said: str
    seconds: float | None = None


Watch = Callable[[Now], None]
Progress = Callable[[Ended, int, int], None]  # (a cell, cells done, cells in all)


def unwatched(now: Now) -> None:
    """Nobody looks."""


@dataclass
class Outcome:
    """Counts, the failures as (cell, message), and the conditions of what was recorded, by backbone.

    ``cells``: those that were asked for; ``resumed``: those recorded before; ``left``: those that did not
    begin, or did not end; ``stopped``: what was going on when a time budget's grace was over, by the
    fit's key.
    """

    cells: int = 0
    resumed: int = 0
    left: int = 0
    fits: int = 0
    evaluations: int = 0
    encodes: int = 0
    steps: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    conditions: set[tuple[str, Conditions]] = field(default_factory=set)
    out_of_time: bool = False
    stopped: dict[str, str] = field(default_factory=dict)

    def take(self) -> Outcome:
        """What was counted since the last time; it is counted here no more."""
        part = Outcome()
        part.add(self)
        self.fits = self.evaluations = self.encodes = self.steps = 0
        self.failures, self.conditions, self.stopped = [], set(), {}
        return part

    def add(self, other: Outcome) -> None:
        """Count in what another process did."""
        for name in ("fits", "evaluations", "encodes", "steps"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failures += other.failures
        self.conditions |= other.conditions
        self.out_of_time |= other.out_of_time
        self.stopped |= other.stopped
