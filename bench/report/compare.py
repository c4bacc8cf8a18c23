"""Compare two methods on the same images: differences, intervals, tests, and a verdict in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.metrics import TEMPERATURES, Metric
from bench.report import measures, moves, verdict
from bench.report.gaps import at_bound
from bench.report.measures import ACCURACY
from bench.report.moves import MOST, Moves
from bench.report.pairs import Averaged, Pair, numbers, pairs, sides
from bench.report.render import PrintedTable
from bench.report.select import Choice, for_tables, one_backbone
from bench.report.table import AVERAGE, Row, Score
from bench.report.verdict import DATASETS, DRAWS, Mends
from bench.report.wording import cells_text, p_text, shots_text
from bench.stats import (
    Interval,
    average_interval,
    dataset_interval,
    difference,
    difference_bounds,
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
OVER = (DRAWS, DATASETS)
FEWEST = 3  # datasets that --over datasets needs


@dataclass(frozen=True)
class Tested:
    """The interval of a difference with its tests.

    ``p`` and ``resolves`` are None where one seed drew the images, because they would speak of other draws.
    """

    interval: Interval
    p: float | None
    resolves: float | None


@dataclass(frozen=True)
class Comparison:
    """The comparison of two methods.

    ``difference``: first - second, averaged over all datasets and numbers of shots, in natural units: a
    fraction for accuracy, nats for a log-likelihood. ``p``: the p-value of that difference. ``resolves``: the
    smallest true difference that at least 4 of 5 repetitions with as many seeds and images would find at the
    5 % level, in the same units (above 1 for accuracies if none would be found so often). Both are None where
    one seed drew the images. ``table``: the cells. ``classes``: the classes on which the first method gains
    and loses most, by accuracy.
    """

    first: str
    second: str
    verdict: str
    difference: Interval
    p: float | None
    resolves: float | None
    pairs: tuple[Pair, ...]
    table: PrintedTable
    classes: Moves


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
    over: str = DRAWS,
    metric: str = "top1",
    classes: int = MOST,
    written: Mapping[str, str] | None = None,
    data_root: Path | None = None,
) -> Comparison:
    """Compare two methods of a DataFrame from ``load_results``, seed by seed and image by image.

    Only cells that both methods have are compared. A method is named ``name``, ``name:key=value`` (a variant,
    as tables print it) or ``name@prompts``. ``over`` says what averages treat as a sample: with ``draws``,
    they speak of these datasets, with other draws and test images; with ``datasets``, they speak of other
    datasets of the same kind. ``metric``: what is compared (``bench.metrics``). ``classes``: how many classes
    to name on which the first method gains most, and how many on which it loses most; 0 names none.
    ``written`` and ``data_root``: where datasets lie whose class names the catalog does not know, as in
    ``bench.table``.

    Cells whose records do not keep what the metric needs are left out, and a note says so. Raises BenchError
    for unknown names, for choices that are left open, if the two methods have no cell in common, and if there
    are fewer than 3 datasets for ``over="datasets"``.
    """
    if first == second:
        raise BenchError(f"{first} against itself: name two methods, or variants as in {first}:beta=0.7")
    if over not in OVER:
        raise BenchError(f"--over {over}: choose one of {', '.join(OVER)}")
    if classes < 0:
        raise BenchError(f"--classes {classes}: a number of classes is 0 or more")
    shown = measures.chosen(metric)
    choice = Choice.of(frame, datasets=datasets, shots=shots, backbone=backbone, preset=preset, variants=True)
    notes = list(frame.attrs.get("notes", ()))
    frame, _ = for_tables(frame[frame["target"] == frame["dataset"]], choice)
    rows = sides(one_backbone(frame), (first, second), prompts, protocol)
    names = (first, second)
    shared, lost = pairs(rows[0], rows[1], shown)
    mends = _mends(choice, rows, prompts, protocol)
    if not shared:
        drawn = numbers(rows[0], rows[1])
        raise BenchError(verdict.nothing_in_common(names, rows, drawn, lost, mends, shown))
    by_shots: dict[int, list[Pair]] = {}
    for pair in shared:
        by_shots.setdefault(pair.shots, []).append(pair)
    cells = _over_shots(shared, lambda pair: pair.values)
    if over == DATASETS:
        _enough(by_shots, cells)
    ranks = _ranks(by_shots)
    lines = [
        _named(row, first, second)
        for n, some in by_shots.items()
        for row in _block(n, some, ranks.get(n), over, shown)
    ]
    whole = _average(cells, over, shown)
    said = verdict.sentence(names, list(by_shots), cells, whole.interval, whole.resolves, over, shown)
    tests = [P, *([MCNEMAR] if shown is ACCURACY else []), *([WILCOXON] if ranks else [])]
    columns = [first, second, DIFFERENCE, INTERVAL, *tests, RESOLVES]
    table = PrintedTable(
        measures.titled(f"{first} against {second}", shown),
        columns,
        lines,
        heads=("dataset", "shots"),
        left=(MCNEMAR,),
        metric=measures.named(shown),
    )
    beyond = any(row.entries[RESOLVES].text == verdict.none(shown) for row in lines)
    right = _over_shots(shared, lambda pair: (pair.first, pair.second)) if classes else []
    paths = {pair.dataset: pair.paths[0][0] for pair in shared}
    moved = moves.moves(right, paths, classes, written, data_root)
    table.notes = [said, *moves.notes(names, moved, shown)]
    table.notes += verdict.notes(names, shared, cells, ranks, lost, over, beyond, mends, shown)
    table.notes += [*_at_bounds(names, shared, rows, shown), *notes]
    return Comparison(
        first, second, said, whole.interval, whole.p, whole.resolves, tuple(shared), table, moved
    )


def _mends(choice: Choice, rows: Sequence[pd.DataFrame], prompts: str | None, protocol: str | None) -> Mends:
    """Return what mends records of the two sides that do not keep what a metric needs."""
    methods = tuple(str(side["method"].iloc[0]) for side in rows)
    made = tuple(bool(side["imported"].all()) for side in rows)
    asked = replace(choice, prompts=(prompts,) if prompts else (), protocol=protocol)
    return Mends(asked, (methods[0], methods[1]), (made[0], made[1]))


def _at_bounds(
    names: Sequence[str], shared: Sequence[Pair], rows: Sequence[pd.DataFrame], metric: Metric
) -> list[str]:
    """Name the cells whose temperature validation could not fix, for a metric that uses it."""
    if "temperature" not in metric.needs:
        return []
    values = {p: t for side in rows for p, t in zip(side["path"], side["temperature"], strict=True)}
    notes = []
    for bound in TEMPERATURES:
        sides = [
            (f"{name} on {pair.dataset}", pair.shots)
            for i, name in enumerate(names)
            for pair in shared
            if any(values[path] == bound for path in pair.paths[i])
        ]
        notes += at_bound(bound, [cells_text(sides)] if sides else [])
    return notes


def _enough(by_shots: Mapping[int, Sequence[Pair]], cells: Sequence[Averaged]) -> None:
    """Raise BenchError if an average would treat fewer than 3 datasets as a sample."""
    counts = {shots_text(n): len(some) for n, some in by_shots.items()} | {"all numbers of shots": len(cells)}
    for where, count in counts.items():
        if count < FEWEST:
            raise BenchError(
                f"--over {DATASETS} needs at least {FEWEST} datasets, and the two methods share {count} at "
                f"{where}: run more datasets, choose other numbers of shots with --shots, "
                f"or take --over {DRAWS}"
            )


def _over_shots(
    shared: Sequence[Pair], of: Callable[[Pair], tuple[NDArray[Any], NDArray[Any]]]
) -> list[Averaged]:
    """Return each dataset's differences (S, n), averaged over its numbers of shots.

    ``of`` gives the two arrays of a pair whose difference is taken. All numbers of shots have the same test
    images. Only seeds that a dataset has at every number of shots can be averaged, and a dataset without such
    a seed is left out. Raises BenchError if none is left.
    """
    datasets: dict[str, list[Pair]] = {}
    for pair in shared:
        datasets.setdefault(pair.dataset, []).append(pair)
    averaged = []
    for name, cells in datasets.items():
        seeds = sorted(set.intersection(*(set(c.seeds) for c in cells)))
        if seeds:
            gaps = [difference(*of(c))[[c.seeds.index(s) for s in seeds]] for c in cells]
            drew = any(c.shots for c in cells)
            averaged.append(Averaged(name, tuple(seeds), np.asarray(np.mean(gaps, axis=0)), drew))
    if not averaged:
        raise BenchError("no seed was run at every number of shots: choose one number with --shots")
    return averaged


def _average(cells: Sequence[Averaged], over: str, metric: Metric) -> Tested:
    """Return the average of the cells' differences, over draws and images or over datasets.

    Raises BenchError over datasets if all differences are equal, as those of two identical methods.
    """
    if over == DATASETS:
        means = [float(cell.gaps.mean()) for cell in cells]
        if max(means) - min(means) < 1e-9:
            raise BenchError(
                f"--over {DATASETS}: the methods differ by "
                f"{measures.with_unit(metric, measures.gap(metric, means[0]))} on every dataset, so "
                f"nothing is known about how datasets vary; take --over {DRAWS}"
            )
        interval = dataset_interval(means, bounds=difference_bounds(metric.bounds))
    else:
        interval = average_interval([cell.gaps for cell in cells], bounds=difference_bounds(metric.bounds))
        if any(cell.one_draw for cell in cells):
            return Tested(interval, None, None)
    return Tested(interval, p_value(interval), resolvable(interval))


def _block(shots: int, some: Sequence[Pair], rank: float | None, over: str, metric: Metric) -> list[Row]:
    """Build one line per dataset and, if there are several datasets, one for their average."""
    cells = [Averaged(c.dataset, c.seeds, difference(*c.values), shots > 0) for c in some]
    rows = []
    for pair, alone in zip(some, _together(cells, metric), strict=True):
        tests = {MCNEMAR: _mcnemar(pair)} if metric is ACCURACY else {}  # it compares right and wrong alone
        rows.append(_line(pair.dataset, shots, [pair], alone, tests, metric))
    if len(cells) > 1:
        ranks = {} if rank is None else {WILCOXON: Score(rank, p_text(rank))}
        rows.append(_line(AVERAGE, shots, some, _average(cells, over, metric), ranks, metric))
    return rows


def _mcnemar(pair: Pair) -> Score:
    """Return McNemar's p for each seed on its own."""
    tests = [mcnemar(_of_seed(pair.first, i), _of_seed(pair.second, i)) for i in range(len(pair.seeds))]
    return Score(text="  ".join(p_text(t.p_mid) for t in tests))


def _together(cells: Sequence[Averaged], metric: Metric) -> list[Tested]:
    """Return the difference of each cell. Holm's correction is over those that have a p-value."""
    alone = [_average([cell], DRAWS, metric) for cell in cells]
    p = [one.p for one in alone if one.p is not None]
    corrected = iter(holm(p).tolist())
    return [
        one if one.p is None else Tested(one.interval, next(corrected), resolvable(one.interval, rows=len(p)))
        for one in alone
    ]


def _of_seed(right_Sn: NDArray[np.bool_], i: int) -> NDArray[np.bool_]:
    right_n: NDArray[np.bool_] = right_Sn[i if len(right_Sn) > 1 else 0]
    return right_n


def _line(
    name: str, shots: int, cells: Sequence[Pair], tested: Tested, more: Mapping[str, Score], metric: Metric
) -> Row:
    entries = {}
    for i, side in enumerate(("first", "second")):
        value = metric.scale * float(np.mean([c.values[i].mean() for c in cells]))
        entries[side] = Score(value, measures.text(metric, value))
    estimate = tested.interval.estimate
    entries |= {
        DIFFERENCE: Score(metric.scale * estimate, measures.gap(metric, estimate)),
        INTERVAL: Score(text=measures.span(metric, tested.interval)),
        P: Score() if tested.p is None else Score(tested.p, p_text(tested.p)),
        MCNEMAR: Score(),
        WILCOXON: Score(),
        RESOLVES: _resolves(tested.resolves, metric),
        **more,
    }
    return Row((name, str(shots)), entries, shots=shots, block=(shots,))


def _resolves(size: float | None, metric: Metric) -> Score:
    if size is None:
        return Score()
    if size > measures.widest(metric):
        return Score(text=verdict.none(metric))
    return Score(metric.scale * size, measures.gap(metric, size).lstrip("+"))


def _named(row: Row, first: str, second: str) -> Row:
    entries = dict(row.entries)
    return replace(row, entries={first: entries.pop("first"), second: entries.pop("second"), **entries})


def _ranks(by_shots: Mapping[int, Sequence[Pair]]) -> dict[int, float]:
    """Return Wilcoxon's p over datasets by number of shots, after Holm's correction over these numbers.

    A number of shots with fewer than two datasets has no p.
    """
    by_number = {}
    for shots, cells in by_shots.items():
        if len(cells) > 1:
            scores = pd.DataFrame(
                {"a": [c.values[0].mean() for c in cells], "b": [c.values[1].mean() for c in cells]}
            )
            by_number[shots] = float(wilcoxon_holm(scores)["p"].iloc[0])
    if not by_number:
        return {}
    return dict(zip(by_number, map(float, holm(list(by_number.values()))), strict=True))
