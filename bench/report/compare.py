"""Compare two methods on the same images: differences, intervals, tests, and a verdict in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.report.pairs import Pair, pairs, sides
from bench.report.render import PrintedTable
from bench.report.select import Choice, for_tables, one_backbone
from bench.report.table import AVERAGE, Row, Score
from bench.report.wording import cells_text, p_text, shots_list
from bench.stats import (
    Interval,
    average_interval,
    difference,
    holm,
    mcnemar,
    p_value,
    resolvable,
    wilcoxon_holm,
)

DIFFERENCE, INTERVAL, P, MCNEMAR, WILCOXON, RESOLVES = (
    "difference",
    "interval",
    "p",
    "McNemar",
    "Wilcoxon",
    "resolves",
)
BOUNDS = (-1.0, 1.0)
ENOUGH = 6  # datasets; with fewer, no two-sided signed-rank p can be below 0.05


@dataclass(frozen=True)
class Comparison:
    """The comparison of two methods.

    ``difference``: first - second, averaged over all datasets and numbers of shots, as a fraction.
    ``resolves``: the smallest true difference that this many seeds and images show in 4 of 5 repetitions, as
    a fraction. ``table``: the cells.
    """

    first: str
    second: str
    verdict: str
    difference: Interval
    resolves: float
    pairs: tuple[Pair, ...]
    table: PrintedTable


def compare(
    frame: pd.DataFrame,
    first: str,
    second: str,
    *,
    datasets: Sequence[str] = (),
    shots: Sequence[int] = (),
    backbone: str | None = None,
    prompts: str | None = None,
    protocol: str | None = None,
    preset: str | None = None,
) -> Comparison:
    """Compare two methods of a DataFrame from ``load_results``, seed by seed and image by image.

    Only cells that both methods have are compared. A method is named ``name``, ``name:key=value`` (a variant,
    as tables print it) or ``name@prompts``. Raises BenchError for unknown names, for choices that are left
    open, and if the two methods have no cell in common.
    """
    if first == second:
        raise BenchError(f"{first} against itself: name two methods, or variants as in {first}:beta=0.7")
    choice = Choice.of(frame, datasets=datasets, shots=shots, backbone=backbone, preset=preset, variants=True)
    notes = list(frame.attrs.get("notes", ()))
    frame, _ = for_tables(frame[frame["target"] == frame["dataset"]], choice)
    rows = sides(one_backbone(frame), (first, second), prompts, protocol)
    shared, lost = pairs(rows[0], rows[1])
    if not shared:
        raise BenchError(
            f"{first} and {second} have no complete cell in common"
            + (f"; one of the two lacks a seed or failed on {cells_text(lost)}" if lost else "")
        )
    by_shots: dict[int, list[Pair]] = {}
    for pair in shared:
        by_shots.setdefault(pair.shots, []).append(pair)
    ranks = _ranks(by_shots)
    lines = [
        _named(row, first, second) for n, cells in by_shots.items() for row in _block(n, cells, ranks.get(n))
    ]
    whole = average_interval(_over_shots(shared), bounds=BOUNDS)
    verdict = _verdict(first, second, shared, whole)
    columns = [first, second, DIFFERENCE, INTERVAL, P, MCNEMAR, *([WILCOXON] if ranks else []), RESOLVES]
    table = PrintedTable(
        f"{first} against {second}", columns, lines, heads=("dataset", "shots"), left=(MCNEMAR,)
    )
    table.notes = [verdict, *_notes(shared, ranks, lost), *notes]
    return Comparison(first, second, verdict, whole, resolvable(whole), tuple(shared), table)


def _over_shots(shared: Sequence[Pair]) -> list[NDArray[np.float64]]:
    """Return each dataset's differences (S, n), averaged over its numbers of shots.

    All numbers of shots have the same test images.

    Only seeds that a dataset has at every number of shots can be averaged. Raises BenchError if there are
    none.
    """
    datasets: dict[str, list[Pair]] = {}
    for pair in shared:
        datasets.setdefault(pair.dataset, []).append(pair)
    tables = []
    for cells in datasets.values():
        seeds = sorted(set.intersection(*(set(c.seeds) for c in cells)))
        if seeds:
            gaps = [difference(c.first, c.second)[[c.seeds.index(s) for s in seeds]] for c in cells]
            tables.append(np.asarray(np.mean(gaps, axis=0)))
    if not tables:
        raise BenchError("no seed was run at every number of shots: choose one number with --shots")
    return tables


def _block(shots: int, cells: Sequence[Pair], rank: float | None) -> list[Row]:
    """Build one line per dataset and, if there are several datasets, one for their average."""
    gaps = [difference(c.first, c.second) for c in cells]
    intervals = [average_interval([gap], bounds=BOUNDS) for gap in gaps]
    rows = []
    for cell, interval, p in zip(cells, intervals, holm([p_value(i) for i in intervals]), strict=True):
        tests = [mcnemar(_of_seed(cell.first, i), _of_seed(cell.second, i)) for i in range(len(cell.seeds))]
        each = Score(text="  ".join(p_text(t.p_mid) for t in tests))
        rows.append(_line(cell.dataset, shots, [cell], interval, float(p), {MCNEMAR: each}))
    if len(cells) > 1:
        whole = average_interval(gaps, bounds=BOUNDS)
        ranks = {} if rank is None else {WILCOXON: Score(rank, p_text(rank))}
        rows.append(_line(AVERAGE, shots, cells, whole, p_value(whole), ranks))
    return rows


def _of_seed(right_Sn: NDArray[np.bool_], i: int) -> NDArray[np.bool_]:
    right_n: NDArray[np.bool_] = right_Sn[i if len(right_Sn) > 1 else 0]
    return right_n


def _line(
    name: str, shots: int, cells: Sequence[Pair], interval: Interval, p: float, more: Mapping[str, Score]
) -> Row:
    means = {
        side: 100 * float(np.mean([getattr(c, side).mean() for c in cells])) for side in ("first", "second")
    }
    entries = {side: Score(value, f"{value:.2f}") for side, value in means.items()}
    gap, reach = 100 * interval.estimate, 100 * resolvable(interval)
    entries |= {
        DIFFERENCE: Score(gap, f"{gap:+.2f}"),
        INTERVAL: Score(text=_span(interval)),
        P: Score(p, p_text(p)),
        MCNEMAR: Score(),
        WILCOXON: Score(),
        RESOLVES: Score(reach, f"{reach:.2f}"),
        **more,
    }
    return Row((name, str(shots)), entries, shots=shots, block=(shots,))


def _named(row: Row, first: str, second: str) -> Row:
    entries = dict(row.entries)
    return replace(row, entries={first: entries.pop("first"), second: entries.pop("second"), **entries})


def _span(interval: Interval) -> str:
    return f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f}"


def _ranks(by_shots: Mapping[int, Sequence[Pair]]) -> dict[int, float]:
    """Return Wilcoxon's p over datasets by number of shots, after Holm's correction over these numbers.

    A number of shots with fewer than two datasets has no p.
    """
    by_number = {}
    for shots, cells in by_shots.items():
        if len(cells) > 1:
            scores = pd.DataFrame(
                {"a": [c.first.mean() for c in cells], "b": [c.second.mean() for c in cells]}
            )
            by_number[shots] = float(wilcoxon_holm(scores)["p"].iloc[0])
    if not by_number:
        return {}
    return dict(zip(by_number, map(float, holm(list(by_number.values()))), strict=True))


def _verdict(first: str, second: str, shared: Sequence[Pair], whole: Interval) -> str:
    """Say which method is better, by how much, how sure that is, and what could have been seen."""
    names = list(dict.fromkeys(p.dataset for p in shared))
    numbers = shots_list(p.shots for p in shared)
    where = f"on average over {len(names)} datasets" if len(names) > 1 else f"on {names[0]}"
    size = f"{abs(100 * whole.estimate):.2f} points"
    if whole.low > 0 or whole.high < 0:
        word = "better" if whole.estimate > 0 else "worse"
        says = f"{first} is {word} than {second} by {size} {where} at {numbers}"
    else:
        says = (
            f"{first} and {second} cannot be told apart {where} at {numbers}: "
            f"the difference is {100 * whole.estimate:+.2f} points"
        )
    seeds = max(max(len(p.first), len(p.second)) for p in shared)
    images = sum({p.dataset: p.first.shape[1] for p in shared}.values())
    return (
        f"{says} (95 % interval {_span(whole)}). With {seeds} seed{'s' if seeds > 1 else ''} "
        f"and {images} test images, 4 of 5 repetitions would show "
        f"a true difference of {100 * resolvable(whole):.2f} points."
    )


def _notes(shared: Sequence[Pair], ranks: Mapping[int, float], lost: Sequence[tuple[str, int]]) -> list[str]:
    counts = sorted({max(len(p.first), len(p.second)) for p in shared})
    varies = (
        "They cover other test images of these datasets, but no other seeds."
        if counts == [1]
        else "They cover other seeds and other test images of these datasets, but no other datasets."
    )
    notes = [
        f"Differences and 95 % intervals are in points, paired by seed and image. {varies}",
        "'p' tests the difference, with Holm's correction over the datasets of one number of shots.",
        "'McNemar' is the mid-p of McNemar's test for each seed on its own.",
        "'resolves' is the smallest true difference that this many seeds and images "
        "show in 4 of 5 repetitions.",
    ]
    if ranks:
        few = len({p.dataset for p in shared}) < ENOUGH
        hint = f" With fewer than {ENOUGH} datasets it cannot be below 0.05." if few else ""
        notes.append(
            "'Wilcoxon' is the p-value of the signed ranks over datasets, "
            f"with Holm's correction over the numbers of shots.{hint}"
        )
    if _unbalanced(shared):
        notes.append(
            "The first sentence averages each dataset over the numbers of shots that both methods have "
            "there, on the seeds that it has at all of them; --shots compares at one number."
        )
    return notes + (
        [f"Left out, because one of the two methods lacks a seed or failed: {cells_text(lost)}."]
        if lost
        else []
    )


def _unbalanced(shared: Sequence[Pair]) -> bool:
    """Return whether datasets differ in their numbers of shots, or numbers of shots in their seeds."""
    shots = {name: {p.shots for p in shared if p.dataset == name} for name in {p.dataset for p in shared}}
    several = len({p.shots for p in shared}) > 1
    return len(set(map(frozenset, shots.values()))) > 1 or (several and len({p.seeds for p in shared}) > 1)
