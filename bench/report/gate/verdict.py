"""Define the verdicts of the gate: on each method at a number of shots, and on the whole check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.stats import NonInferiority

Finding = Literal["held", "worse", "undecided", "changed"]


@dataclass(frozen=True)
class Group:
    """The verdict on one method at one number of shots, over all its test sets and seeds.

    ``agreement``: the lowest share of equal predictions of any evaluation. ``test``: the paired comparison,
    None if cells failed. ``by_agreement``: whether the rule of agreement decided.
    """

    name: str
    cells: int
    passed: bool
    by_agreement: bool
    agreement: float
    test: NonInferiority | None
    reason: str

    @property
    def finding(self) -> Finding:
        """Return what happened to the group.

        ``changed``: the predictions differ on the same kind of machine, but the accuracy has held. ``worse``:
        cells failed, or the whole interval of the accuracy's change is below 0. ``undecided``: there are too
        few images to tell. ``held``: none of these.
        """
        if self.passed:
            return "held"
        if self.by_agreement and self.test is not None and self.test.passed:
            return "changed"
        return "worse" if self.test is None or self.test.interval.high < 0 else "undecided"


@dataclass(frozen=True)
class Verdict:
    """The verdict on a whole check, speed aside."""

    groups: tuple[Group, ...]
    warnings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Return whether every group passed."""
        return all(group.passed for group in self.groups)

    @property
    def finding(self) -> Finding:
        """Return the most serious of the findings of the groups."""
        found = {group.finding for group in self.groups}
        order: tuple[Finding, ...] = ("worse", "undecided", "changed")
        return next((one for one in order if one in found), "held")
