"""Estimate how much longer a run takes.

Images are estimated by the rate of those encoded so far. Cells are estimated by the mean time of finished
cells of the same kind or, without any, by their guessed cost.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import mean

from bench.plan.estimate import Guess, Kind

# The time left is estimated when this share of all guessed work is done.
_ENOUGH = 0.01
# The plan's estimate is judged only after this many cells.
_KNOWN = 3
# It is judged only after this share of all guessed work.
_LEARNT = 0.05
# A correction is printed only if the plan's estimate is wrong by this factor.
_FAR = 3.0
# It is printed only if the estimate is wrong by this many seconds.
_MATTERS = 30.0
# The guesses weigh as much as measured times of this share of all guessed work.
_TRUST = 0.05


@dataclass(frozen=True)
class Learnt:
    """A corrected estimate: what the first finished cells say about the seconds of all.

    ``cells``: number of finished cells, which took ``spent`` seconds. ``whole``: seconds of all cells, summed
    over processes. ``told``: the plan's estimate of these. ``left``: seconds until the run ends.
    """

    cells: int
    spent: float
    whole: float
    told: float
    left: float


class Pace:
    """An estimate of the time left, which is corrected by every finished cell and batch of images.

    ``guesses``: the guessed cost of each cell that is left, by fit key. ``expected``: the seconds of all
    cells, without encoding, that the plan printed, if any. ``images``, ``jobs``: see ``begin``.
    """

    def __init__(
        self,
        guesses: Mapping[str, Guess],
        expected: float | None = None,
        images: int | None = None,
        jobs: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.left, self.images, self.jobs, self.clock = dict(guesses), images, jobs, clock
        self.total = sum(g.seconds for g in guesses.values())
        self.recorded = bool(guesses) and all(g.recorded for g in guesses.values())
        self.expected = expected
        self.guessed = self.spent = 0.0  # guessed and measured seconds of the finished cells that were timed
        self.untold = 0.0  # guessed seconds of the other finished cells
        self.seen: dict[Kind, list[float]] = defaultdict(list)  # measured seconds by kind of cell
        self.now = (0, 0.0)  # images that the current encoding stage has done, and when it said so
        self.encoded, self.encoding = 0, 0.0  # images after each stage's first batch, and their seconds

    def begin(self, images: int | None, jobs: int) -> None:
        """Note the passes through the image tower, None if unknown, and the cells that run at a time."""
        self.images, self.jobs = images, jobs

    def image(self, done: int) -> None:
        """Note that ``done`` images of a stage are encoded; 0 begins a stage."""
        before, at = self.now
        self.now = done, self.clock()
        if self.images is not None:
            self.images = max(0, self.images - max(0, done - before))
        if before and done > before:  # models are loaded during a stage's first batch, so it is not counted
            self.encoded += done - before
            self.encoding += self.now[1] - at

    def cell(self, key: str, seconds: float | None) -> None:
        """Note that a cell is finished. ``seconds``: None if its time says nothing about other cells."""
        guess = self.left.pop(key, None)
        if guess is not None and seconds is None:
            self.untold += guess.seconds
        elif guess is not None and seconds is not None:
            self.guessed += guess.seconds
            self.spent += seconds
            self.seen[guess.kind].append(seconds)

    def rate(self) -> float | None:
        """Return the images encoded per second; None before any were timed."""
        return self.encoded / self.encoding if self.encoding else None

    def seconds(self) -> float | None:
        """Return the seconds that are left; None before there is enough to estimate by."""
        rate = self.rate()
        if self.images is None or (self.images and rate is None):
            return None
        if self.left and not self.recorded and self.guessed < _ENOUGH * self.total:
            return None
        return (self.images / rate if rate else 0.0) + self._cells() / self.jobs

    def learnt(self) -> Learnt | None:
        """Return a corrected estimate, once, if enough cells are finished and the plan's was far off."""
        known = sum(map(len, self.seen.values()))
        if self.expected is None or not self.left or known < _KNOWN or self.guessed < _LEARNT * self.total:
            return None
        told, self.expected = self.expected, None  # the correction is printed once
        left = self._cells()
        whole = self.spent + self.untold * self._scale() + left
        far = max(whole, told) >= _FAR * max(min(whole, told), 1e-9) and abs(whole - told) >= _MATTERS
        return Learnt(known, self.spent, whole, told, left / self.jobs) if far else None

    def _scale(self) -> float:
        """Return the ratio of measured to guessed seconds over the finished cells."""
        trust = _TRUST * self.total
        return (self.spent + trust) / (self.guessed + trust) if self.guessed + trust else 1.0

    def _cells(self) -> float:
        """Return the seconds of the cells that are left, summed over processes."""
        scale = self._scale()
        return sum(
            mean(self.seen[g.kind]) if g.kind in self.seen else g.seconds * scale for g in self.left.values()
        )
