"""Whether a result of ours repeats a published number.

Verdicts: ``reproduced`` within the tolerance, ``differs`` outside it, ``not run`` without a complete result
of ours, and ``not comparable`` for results of ours without a published number for the same backbone, dataset
and budget.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.report.table import AVERAGE, Row, Score

ZERO_SHOT, AVERAGES, SHIFTS, FEW, MANY = 0.4, 0.5, 0.8, 1.5, 1.0  # points; FEW up to 2 shots (protocol 20)
FULL = "paper"  # the preset with the published budgets
COLUMNS = ["ours", "published", "difference", "tolerance", "verdict"]


def tolerance(shots: int, dataset: str, shifted: bool) -> float:
    """Points by which a repetition may miss a published number: least in zero-shot, which draws nothing."""
    if shots == 0:
        return ZERO_SHOT
    if dataset == AVERAGE:
        return AVERAGES
    return SHIFTS if shifted else FEW if shots <= 2 else MANY


def verdict(gap: float, allowed: float, preset: str) -> str:
    """The verdict on a result of ours that is ``gap`` points from the published number."""
    if preset != FULL:
        return f"not comparable (preset {preset})"
    return "reproduced" if abs(gap) <= allowed + 1e-9 else "differs"


def entries(ours: Score, quoted: Score, gap: Score, allowed: float, said: str) -> dict[str, Score]:
    """A line of ``COLUMNS``: both numbers, their difference, the tolerance in points and the verdict."""
    return {
        "ours": ours,
        "published": quoted,
        "difference": gap,
        "tolerance": Score(allowed, f"{allowed:.1f}"),
        "verdict": Score(text=said),
    }


def unquoted(reason: str) -> dict[str, Score]:
    """A line of ``COLUMNS`` for results of ours without a published number."""
    return {c: Score() for c in COLUMNS} | {"verdict": Score(text=f"not comparable ({reason})")}


def tally(rows: Sequence[Row]) -> str:
    """How many rows have each verdict."""
    verdicts = [row.entries["verdict"].text.split(" (")[0] for row in rows]
    return ", ".join(
        f"{verdicts.count(v)} {v}" for v in ("reproduced", "differs", "not run", "not comparable")
    )
