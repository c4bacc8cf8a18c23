"""How much longer a run will take: images by their rate, cells by what such cells took and what they cost."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from statistics import mean

from bench.plan.estimate import Guess, Kind

_ENOUGH = 0.01  # the share of all guessed work from which what it took says how long the rest will take
_TRUST = 0.05  # the share of all guessed work that the guesses themselves count for, beside what was seen


class Pace:
    """Hears what is done and judges what is left; it says nothing before it has something to judge by.

    ``guesses``: what each cell that is left will take, by fit key. ``images`` and ``jobs``: as of ``begin``.
    """

    def __init__(
        self,
        guesses: Mapping[str, Guess],
        images: int | None = 0,
        jobs: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.left, self.images, self.jobs, self.clock = dict(guesses), images, jobs, clock
        self.total = sum(g.seconds for g in guesses.values())
        self.recorded = bool(guesses) and all(g.recorded for g in guesses.values())
        self.guessed = self.spent = 0.0  # of the cells that told their seconds
        self.seen: dict[Kind, list[float]] = defaultdict(list)  # their seconds
        self.now = (0, 0.0)  # of the stage that encodes: images done, and when
        self.encoded, self.encoding = 0, 0.0  # images after the first batch of each stage, and their seconds

    def begin(self, images: int | None, jobs: int) -> None:
        """Hear what the run is: passes through the image tower, None where not known, and cells at a time."""
        self.images, self.jobs = images, jobs

    def image(self, done: int) -> None:
        """``done`` images of a stage are encoded; 0 begins a stage.

        The time of its first batch, in which models are loaded and processes start, is not counted.
        """
        before, at = self.now
        self.now = done, self.clock()
        if self.images is not None:
            self.images = max(0, self.images - max(0, done - before))
        if before and done > before:
            self.encoded += done - before
            self.encoding += self.now[1] - at

    def cell(self, key: str, seconds: float | None) -> None:
        """A cell is done; None where its time says nothing of others."""
        guess = self.left.pop(key, None)
        if guess is not None and seconds is not None:
            self.guessed += guess.seconds
            self.spent += seconds
            self.seen[guess.kind].append(seconds)

    def rate(self) -> float | None:
        """Images a second."""
        return self.encoded / self.encoding if self.encoding else None

    def seconds(self) -> float | None:
        """Seconds that are left; None before there is something to judge by."""
        rate = self.rate()
        if self.images is None or (self.images and rate is None):
            return None
        if self.left and not self.recorded and self.guessed < _ENOUGH * self.total:
            return None
        trust = _TRUST * self.total
        scale = (self.spent + trust) / (self.guessed + trust) if self.guessed + trust else 1.0
        cells = sum(
            mean(self.seen[g.kind]) if g.kind in self.seen else g.seconds * scale for g in self.left.values()
        )
        return (self.images / rate if rate else 0.0) + cells / self.jobs
