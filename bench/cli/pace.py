"""How much longer a run will take: images by their rate, cells by what such cells took and what they cost."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import mean

from bench.plan.estimate import Guess, Kind

_ENOUGH = 0.01  # the share of all guessed work from which what it took says how long the rest will take
_KNOWN, _LEARNT = 3, 0.05  # cells, and their share of all guessed work, that tell how far off the estimate is
_FAR, _MATTERS = 3.0, 30.0  # how far off is worth a line: as a factor, and in seconds
_TRUST = 0.05  # the share of all guessed work that the guesses themselves count for, beside what was seen


@dataclass(frozen=True)
class Learnt:
    """What ``cells`` cells, which took ``spent`` seconds, say of all, against what the user was ``told``.

    ``whole``: seconds of all cells, of which ``left`` are left; the former of all processes together.
    """

    cells: int
    spent: float
    whole: float
    told: float
    left: float


class Pace:
    """Hears what is done and judges what is left; it says nothing before it has something to judge by.

    ``guesses``: what each cell that is left will take, by fit key. ``expected``: the seconds of
    them all that the user was told, without encoding, if any. ``images`` and ``jobs``: as of ``begin``.
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
        self.guessed = self.spent = 0.0  # of the cells that told their seconds
        self.untold = 0.0  # the guessed seconds of the others that are done
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
        if guess is not None and seconds is None:
            self.untold += guess.seconds
        elif guess is not None and seconds is not None:
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
        return (self.images / rate if rate else 0.0) + self._cells() / self.jobs

    def learnt(self) -> Learnt | None:
        """Once, as soon as enough cells are done: how far off what the user was told is, where it is far."""
        known = sum(map(len, self.seen.values()))
        if self.expected is None or not self.left or known < _KNOWN or self.guessed < _LEARNT * self.total:
            return None
        told, self.expected = self.expected, None
        left = self._cells()
        whole = self.spent + self.untold * self._scale() + left
        far = max(whole, told) >= _FAR * max(min(whole, told), 1e-9) and abs(whole - told) >= _MATTERS
        return Learnt(known, self.spent, whole, told, left / self.jobs) if far else None

    def _scale(self) -> float:
        """How much longer cells take than guessed."""
        trust = _TRUST * self.total
        return (self.spent + trust) / (self.guessed + trust) if self.guessed + trust else 1.0

    def _cells(self) -> float:
        """Seconds of the cells that are left, one after the other."""
        scale = self._scale()
        return sum(
            mean(self.seen[g.kind]) if g.kind in self.seen else g.seconds * scale for g in self.left.values()
        )
