"""Seconds of a step and replica by how many replicas train together, and the worth of smaller waves.

Waves of a grid follow one another, so a grid of 12 in waves of w takes 12 / w times as long as one wave of w:
the same measurement tells both.
"""

from __future__ import annotations

from typing import Any

from tests.benchmarks import ratios_fits, ratios_steps
from tests.benchmarks.ratios_fits import Case
from tests.benchmarks.ratios_timing import Row, row, told

GRID = 12  # SAFE's published grid
SCALES = (1, 3, GRID, 48)
WAVES = (1, 2, 3, 4, 6)


def rows(
    tower: Any,
    case: Case,
    title: str,
    n: int,
    repeats: int,
    K: int,
    shots: int,
    most: int = 48,
    split: bool = False,
) -> list[Row]:
    """Up to ``most`` replicas against one; ``split``: also a grid of twelve in smaller waves against one."""
    fit = ratios_fits.make(case, tower, K, shots, ratios_fits.shrink(case, 2 * n + 1))
    steps = ratios_steps.of_fit(fit, fit.features()[0])
    scales = [R for R in SCALES if most >= R]
    counts = sorted({*scales, *(WAVES if split else ())})

    def each(R: int) -> float:
        return steps.seconds(steps.values(R), n) / (n * R)

    times = told({R: lambda R=R: each(R) for R in counts}, repeats)

    def against(name: str, R: int, other: int, baseline: str) -> Row:
        held = steps.working_set(R)
        size = f"K={K}, batch {ratios_steps.batch(fit)}"
        note = f"{size}, a step of one replica; {held / 1e6:.3g} MB of weights, gradients and moments"
        more = {"replicas": R, "working_set_bytes": held}
        return row(f"{title}, {name}", baseline, times[R], times[other], True, True, note, more=more)

    rows = [against(f"{R} replicas together", R, 1, "1 replica") for R in scales[1:]]
    return rows + [
        against(f"{GRID} replicas in waves of {w}", w, GRID, f"one wave of {GRID}") for w in WAVES if split
    ]
