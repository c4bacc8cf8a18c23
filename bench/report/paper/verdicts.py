"""Decide whether a result of ours repeats a published number.

The verdicts are ``reproduced`` within the tolerance, ``differs`` outside it, ``not run`` if we have no
complete result, and ``not comparable`` if there is no published number for the backbone, dataset and budget
of a result.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.report.table import AVERAGE, Row, Score

# Tolerances in points (protocol 20).
ZERO_SHOT = 0.4  # zero-shot accuracies
AVERAGES = 0.5  # averages over datasets
SHIFTS = 0.8  # shifted test sets
FEW = 1.5  # one dataset, up to 2 shots
MANY = 1.0  # one dataset, more shots
FULL = "paper"  # the preset with the published budgets
COLUMNS = ["ours", "published", "difference", "tolerance", "verdict"]


def tolerance(shots: int, dataset: str, shifted: bool) -> float:
    """Return the points by which a repetition may miss a published number.

    They are least for zero-shot, which draws no images.
    """
    if shots == 0:
        return ZERO_SHOT
    if dataset == AVERAGE:
        return AVERAGES
    return SHIFTS if shifted else FEW if shots <= 2 else MANY


def verdict(gap: float, allowed: float, preset: str) -> str:
    """Return the verdict on a result of ours that is ``gap`` points from the published number."""
    if preset != FULL:
        return f"not comparable (preset {preset})"
    return "reproduced" if abs(gap) <= allowed + 1e-9 else "differs"


def entries(ours: Score, quoted: Score, gap: Score, allowed: float, said: str) -> dict[str, Score]:
    """Return a line of ``COLUMNS``: both numbers, their difference, the tolerance and the verdict."""
    return {
        "ours": ours,
        "published": quoted,
        "difference": gap,
        "tolerance": Score(allowed, f"{allowed:.1f}"),
        "verdict": Score(text=said),
    }


def unquoted(reason: str) -> dict[str, Score]:
    """Return a line of ``COLUMNS`` for a result of ours without a published number."""
    return {c: Score() for c in COLUMNS} | {"verdict": Score(text=f"not comparable ({reason})")}


def tally(rows: Sequence[Row]) -> str:
    """Count the rows with each verdict, as a sentence."""
    verdicts = [row.entries["verdict"].text.split(" (")[0] for row in rows]
    counts = (f"{verdicts.count(v)} {v}" for v in ("reproduced", "differs", "not run", "not comparable"))
    return f"Rows by verdict: {', '.join(counts)}."
