"""What a run did, counted as it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bench.records.conditions import Conditions

Progress = Callable[[str, int, int], None]  # (what, cells done, cells in all)


@dataclass
class Outcome:
    """Counts, the failures as (cell, message), and the conditions of what was recorded, by backbone."""

    cells: int = 0
    resumed: int = 0
    fits: int = 0
    evaluations: int = 0
    encodes: int = 0
    steps: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    conditions: set[tuple[str, Conditions]] = field(default_factory=set)
    out_of_time: bool = False

    def add(self, other: Outcome) -> None:
        """Count in what another process did."""
        for name in ("fits", "evaluations", "encodes", "steps"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failures += other.failures
        self.conditions |= other.conditions
        self.out_of_time |= other.out_of_time
