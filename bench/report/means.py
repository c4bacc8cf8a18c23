"""Turn records into the numbers of a table: means over seeds and averages over test sets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.report.coordinates import ROW
from bench.report.table import FAILED, Score


class Outcome(NamedTuple):
    """One row of the frame, as far as a mean needs it.

    ``value``: the metric in the scale of tables, for accuracy in percent; NaN if the record cannot tell it.
    ``lost``: whether the fit failed, so that no test set has an evaluation.
    """

    target: str
    seed: int
    ok: bool
    value: float
    error: str
    path: str
    lost: bool


def outcomes_of(frame: pd.DataFrame, column: str = "accuracy") -> list[Outcome]:
    """List the rows of the frame as outcomes, in its order, with the numbers of ``column``."""
    lost = (frame["status"] == "failed") & (frame["key"] == frame["fit"])
    ok = frame["status"] == "ok"
    names = (column, "error", "path")
    columns = (frame["target"], frame["seed"], ok, *(frame[n] for n in names), lost)
    return [Outcome(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]


def by_row(frame: pd.DataFrame, column: str = "accuracy") -> list[tuple[tuple[object, ...], list[Outcome]]]:
    """Group the outcomes by row of a table (``coordinates.ROW``), in the order of these coordinates."""
    groups: dict[tuple[object, ...], list[Outcome]] = {}
    keys = zip(*(frame[c].tolist() for c in ROW), strict=True)
    for key, outcome in zip(keys, outcomes_of(frame, column), strict=True):
        groups.setdefault(key, []).append(outcome)
    return sorted(groups.items())  # keys are of one kind and differ, so that only they are compared


def by_target(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """Group the outcomes by test set."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.target, []).append(outcome)
    return groups


def mean_over_seeds(
    rows: Sequence[Outcome],
    seeds: Sequence[int],
    lost: Sequence[Outcome] = (),
    absent: Sequence[int] = (),
    digits: int = 2,
) -> Score:
    """Return the mean over seeds of the outcomes on one test set, with ``digits`` decimals.

    ``seeds`` are all seeds that the table row has anywhere. If some of them have no record here, the mean of
    the others is partial. ``absent`` are further seeds, which other rows with as many shots have. The text
    says of how many of both it is the mean. A failed seed, in these rows or in the fits of ``lost``, makes
    the entry an error and not a gap: there is no mean over survivors.

    Seeds whose records cannot tell the metric count as missing; ``untold`` and ``untold_seeds`` of the entry
    name them.
    """
    made = sorted((o for o in rows if o.ok), key=lambda o: o.seed)
    bad = [o for o in (*rows, *lost) if not o.ok and o.seed not in {o.seed for o in made}]
    if bad:
        paths = tuple(dict.fromkeys(o.path for o in bad))
        return Score(text=FAILED, note="; ".join(sorted({o.error for o in bad})), failed=paths)
    good = [o for o in made if not np.isnan(o.value)]
    untold = tuple(o.path for o in made if np.isnan(o.value))
    mute = tuple(int(o.seed) for o in made if np.isnan(o.value))
    if not good:
        return Score(untold=untold, untold_seeds=mute)
    there = tuple(int(o.seed) for o in good)
    value = float(np.mean([o.value for o in good]))
    whole = set(there) == set(seeds)
    text = f"{value:.{digits}f}{_share(len(there), len(seeds) + len(absent))}"
    paths = tuple(o.path for o in good)
    return Score(value, text, partial=not whole, paths=paths, seeds=there, untold=untold, untold_seeds=mute)


def average(
    entries: Sequence[Score],
    partial: bool,
    seeds: Sequence[int] = (),
    absent: Sequence[int] = (),
    digits: int = 2,
) -> Score:
    """Return the unweighted mean of complete entries; with ``partial`` of those that are there, marked.

    ``seeds`` and ``absent`` belong to the entries' row, and ``digits`` is as in ``mean_over_seeds``.
    """
    values = [e.value for e in entries if e.value is not None]
    whole = len(values) == len(entries) and not any(e.partial for e in entries)
    if not values or not (whole or partial):
        return Score()
    value = sum(values) / len(values)
    share = _share(len(seeds), len(seeds) + len(absent))
    return Score(value, f"{value:.{digits}f}{share if whole else '*'}", partial=not whole)


def _share(some: int, whole: int) -> str:
    return f" ({some}/{whole})" if some < whole else ""
