"""What the gate says: of each method at a number of shots, and of the whole check."""

from __future__ import annotations

from dataclasses import dataclass

from bench.stats import NonInferiority


@dataclass(frozen=True)
class Group:
    """The verdict on one method at one number of shots, over all its test sets and seeds.

    ``agreement``: the lowest share of equal predictions of any evaluation. ``test``: the paired comparison,
    None where cells failed. ``by_agreement``: which rule decided.
    """

    name: str
    cells: int
    passed: bool
    by_agreement: bool
    agreement: float
    test: NonInferiority | None
    reason: str


@dataclass(frozen=True)
class Verdict:
    """The verdict on a whole check.

    ``speed``: median ratio of calibrated seconds to the baseline's, None where not measured.
    """

    groups: tuple[Group, ...]
    speed: float | None
    warnings: tuple[str, ...]
    slow: bool

    @property
    def passed(self) -> bool:
        return all(group.passed for group in self.groups)
