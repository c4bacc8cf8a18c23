"""Compare the speed of a piece of work between two runs, from repeats that a reference workload frames.

A repeat holds the seconds of the work, and those of a fixed reference workload just before and just after it.
Whatever slows the machine for a while slows all three, so that their ratio stays. Ratios are compared on the
log scale. There, half as fast is as far from 1 as twice as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

ERROR = 0.05  # rate at which all comparisons of a check together may call a group slower that is not
DRIFT = 0.05  # standard deviation of the log ratio between whole runs, which repeats of one run cannot show

Finding = Literal["slower", "not slower", "cannot be said"]


@dataclass(frozen=True)
class Repeat:
    """One repeat of a measurement, in seconds.

    ``work``: of the work. ``before`` and ``after``: of the reference workload right before and right after.
    """

    work: float
    before: float
    after: float

    @property
    def relative(self) -> float:
        """Return the log of the work's seconds over the geometric mean of the reference's."""
        return float(np.log(self.work) - (np.log(self.before) + np.log(self.after)) / 2)


@dataclass(frozen=True)
class Ratio:
    """The ratio of new to old seconds of the work, with its interval. ``limit``: the largest to accept."""

    estimate: float
    low: float
    high: float
    limit: float

    @property
    def finding(self) -> Finding:
        """Return whether the whole interval lies above the limit, the whole interval below it, or neither."""
        if self.low > self.limit:
            return "slower"
        return "not slower" if self.high < self.limit else "cannot be said"


def ratio(
    new: Sequence[Repeat], old: Sequence[Repeat], limit: float, comparisons: int = 1, error: float = ERROR
) -> Ratio:
    """Return the ratio of new to old seconds, relative to the reference workload, with its interval.

    The interval is Student's t over repeats. The repeats of both runs vary, and so do whole runs (``DRIFT``).
    ``comparisons``: how many ratios the check looks at. Each end of an interval is wrong in ``error`` divided
    by that number of checks. Raises ValueError for fewer than two repeats or a limit below 1.
    """
    if min(len(new), len(old)) < 2:
        raise ValueError("an interval takes at least two repeats of each run")
    if limit < 1:
        raise ValueError(f"the limit is the largest ratio to accept, at least 1, not {limit}")
    means, parts, dfs = [], [], []
    for repeats in (new, old):
        logs = [repeat.relative for repeat in repeats]
        means.append(float(np.mean(logs)))
        parts.append(float(np.var(logs, ddof=1)) / len(logs))
        dfs.append(len(logs) - 1)
    variance = sum(parts) + 2 * DRIFT**2
    # Welch's degrees of freedom. The variance between runs is a constant, which has infinitely many.
    spent = sum(part**2 / df for part, df in zip(parts, dfs, strict=True))
    df = variance**2 / spent if spent else np.inf
    reach = -float(special.stdtrit(df, error / comparisons)) * variance**0.5
    difference = means[0] - means[1]
    low, middle, high = np.exp([difference - reach, difference, difference + reach]).tolist()
    return Ratio(middle, low, high, limit)
