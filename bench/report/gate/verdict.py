"""Define the verdicts of the gate: on each method at a number of shots, and on the whole check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.stats import NonInferiority

Finding = Literal["held", "failed", "worse", "undecided", "changed"]


def finding(test: NonInferiority, agreement: float, limit: float | None) -> Finding:
    """Return what happened to a group whose cells all ran.

    ``agreement``: the lowest share of equal predictions of any evaluation. ``limit``: the lowest share that
    is accepted, or None if the accuracy alone decides, as on another kind of machine.

    ``held``: the predictions are equal, or agree as they must, or the interval rules out a drop beyond the
    margin. ``worse``: the whole interval lies beyond the margin. ``changed``: too few predictions agree, and
    the interval does not say worse. ``undecided``: the interval holds drops within the margin and beyond it.
    """
    if agreement == 1:
        return "held"
    if test.outcome == "worse":
        return "worse"
    if limit is None:
        return test.outcome
    return "held" if agreement >= limit else "changed"


@dataclass(frozen=True)
class Group:
    """The verdict on one method at one number of shots, over all its test sets and seeds.

    ``finding``: ``failed`` if cells failed, otherwise what the function ``finding`` returns. ``agreement``:
    the lowest share of equal predictions of any evaluation. ``test``: the paired comparison, None if cells
    failed. ``by_agreement``: whether predictions must agree, as on the same kind of machine.
    """

    name: str
    cells: int
    finding: Finding
    by_agreement: bool
    agreement: float
    test: NonInferiority | None
    reason: str

    @property
    def passed(self) -> bool:
        """Return whether the group held."""
        return self.finding == "held"


@dataclass(frozen=True)
class Verdict:
    """The verdict on a whole check, speed aside.

    ``notes``: what the intervals mean and what they do not cover, in sentences.
    """

    groups: tuple[Group, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Return whether every group passed."""
        return all(group.passed for group in self.groups)

    @property
    def finding(self) -> Finding:
        """Return the most serious of the findings of the groups."""
        found = {group.finding for group in self.groups}
        order: tuple[Finding, ...] = ("failed", "worse", "undecided", "changed")
        return next((one for one in order if one in found), "held")
