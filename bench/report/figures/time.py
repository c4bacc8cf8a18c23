"""Draw average accuracy against the seconds that one cell takes, tuning included: what accuracy costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.errors import BenchError
from bench.records import store
from bench.records.types import EvaluationRecord
from bench.report import select
from bench.report.figures import outcomes, series, style
from bench.report.figures.style import Drawn
from bench.report.select import Choice
from bench.report.wording import cells_text, shots_text
from bench.stats import average_interval


def draw(frame: pd.DataFrame, choice: Choice) -> Drawn:
    """Draw one marker per method and shots, joined in the order of shots, with seconds on a log axis.

    Seconds are the mean over datasets of the median over seeds. They cover preparing, training every
    configuration, searching and evaluating, and the fits that the method builds on. Encoding is not in them,
    because all methods share it. The first fit of a process with a method also pays for imports and
    compilation, so it counts only if there is no other. Rings mark the best trade-offs at the most shots
    (``front``), among methods with the seeds that most have there.
    """
    own, notes = select.own_tests(frame, choice)
    datasets = sorted(own["dataset"].unique())
    rows, machines, cold = [], set[str](), list[tuple[str, int]]()
    untimed: dict[str, None] = {}
    gaps: dict[tuple[str, int], list[str]] = {}
    seeds: dict[tuple[str, int], tuple[int, ...]] = {}
    for (method, shots), group in own.groupby(["method", "shots"]):
        cells = outcomes.by_dataset(group, datasets, set(group["seed"]))
        if cells is None:
            gaps[str(method), int(str(shots))] = []
            continue
        good = group[group["status"] == "ok"]
        costs = [cost(path) for path in good["path"]]
        if not any(c.seconds for c in costs):
            untimed[str(method)] = None
            continue
        i = average_interval(cells)
        seeds[str(method), int(str(shots))] = outcomes.seeds_of(group)
        machines |= {c.machine for c in costs}
        seconds, warm = _seconds(list(good["dataset"]), costs)
        if not warm:
            cold.append((str(method), int(str(shots))))
        rows.append(("", method, shots, seconds, 100 * i.estimate, 100 * i.low, 100 * i.high))
    points = pd.DataFrame(rows, columns=["panel", "series", "shots", "x", "y", "low", "high"])
    if not (points["shots"] > 0).any():
        command = select.run_command(choice, "")
        lacking = " ".join(series.gaps(gaps))
        raise BenchError(
            f"no method has all results that the figure needs. {lacking} `{command}` runs what is missing; "
            "--datasets narrows the average"
        )
    apart = series.of_other_seeds(seeds)
    alike = [pair not in apart for pair in zip(points["series"], points["shots"], strict=True)]
    best = front(points[alike])
    points["front"] = points.index.isin(best.index)
    if untimed:
        notes.append(f"Left out, because their records have no times (imported ones): {', '.join(untimed)}.")
    if len(machines) > 1:
        notes.append(f"Seconds of different machines are mixed: {', '.join(sorted(machines))}.")
    elif machines:
        notes.append(f"Seconds were measured on {min(machines)}; encoding is not counted.")
    if cold:
        notes.append(
            "Seconds include imports and other work of a process's first fit, because there are no other "
            f"fits: {cells_text(cold)}. More --seeds or --datasets give other fits."
        )
    what = "Average accuracy over" if len(datasets) > 1 else "Accuracy on"
    alt = f"{what} {', '.join(datasets)} against seconds per cell"
    chosen, others = series.coloured(own[own["method"].isin(points["series"])], choice)
    shown = sorted({*chosen, *(set(others) & set(best["series"]))})
    others = [name for name in others if name not in shown]
    flat = sorted(set(points["series"]) - {*shown, *others})
    figure = _scatter(points, [*shown, *flat], others, series.titles(own), datasets)
    which = "; ".join(
        f"{m} ({x:.2g} s, {y:.2f} %)" for m, x, y in zip(best["series"], best["x"], best["y"], strict=True)
    )
    at = shots_text(int(points["shots"].max()))
    trade = f"Best trade-offs at {at}, where no other is both faster and more accurate: {which}."
    unequal = [f"{note} They are never a best trade-off." for note in series.other_seeds(seeds)]
    unequal += series.one_seed(seeds)
    return Drawn(figure, points, alt, (trade, *notes, *unequal, *series.others(others), *series.gaps(gaps)))


def front(points: pd.DataFrame) -> pd.DataFrame:
    """Return the points at the most shots that no other point beats, the fastest first.

    Methods without labels are among them. A point beats another if it is at least as fast (``x``) and as
    accurate (``y``), and better in one of the two.
    """
    rivals = points[points["shots"].isin([0, points["shots"].max()])]
    beaten = [
        bool(((rivals["x"] <= x) & (rivals["y"] >= y) & ((rivals["x"] < x) | (rivals["y"] > y))).any())
        for x, y in zip(rivals["x"], rivals["y"], strict=True)
    ]
    return rivals[[not b for b in beaten]].sort_values(["x", "y"])


class Cost(NamedTuple):
    """The cost of an evaluation with the fits behind it.

    ``machine``: the name of the device. ``warm``: whether none of the fits was the first of its process.
    """

    seconds: float
    machine: str
    warm: bool


def cost(path: str) -> Cost:
    """Return what the evaluation at ``path`` cost. Raises BenchError if its record is gone."""
    file = Path(path)
    evaluation = store.read(file)
    if not isinstance(evaluation, EvaluationRecord):
        raise BenchError(f"{path}: this record was deleted meanwhile; load the results again")
    fits = store.behind(file, evaluation)
    fitting = sum(fit.cost for fit in fits)
    machine = evaluation.provenance.device_name or "an unnamed machine"
    return Cost(evaluation.seconds + fitting, machine, not any(fit.first for fit in fits))


def _seconds(datasets: Sequence[str], costs: Sequence[Cost]) -> tuple[float, bool]:
    """Return the mean over datasets of the median over seeds, and whether no dataset has only first fits."""
    frame = pd.DataFrame(costs, columns=list(Cost._fields)).assign(dataset=list(datasets))
    has_warm = frame.groupby("dataset")["warm"].transform("any")
    counted = frame[frame["warm"] | ~has_warm]
    return float(counted.groupby("dataset")["seconds"].median().mean()), bool(has_warm.all())


def _scatter(
    points: pd.DataFrame, coloured: list[str], others: list[str], titles: dict[str, str], datasets: list[str]
) -> Figure:
    appearances = style.appearances(coloured)
    sizes = {n: 3.0 + 0.9 * i for i, n in enumerate(sorted(points["shots"].unique()))}
    with style.context():
        figure, (ax,) = style.canvas(1, 1, style.COLUMN, 2.9)
        for name in others:
            mine = points[points["series"] == name].sort_values("shots")
            ax.plot(mine["x"], mine["y"], marker="o", markersize=2, **style.CROWD)
        for name, appearance in appearances.items():
            mine = points[points["series"] == name].sort_values("shots")
            ax.plot(mine["x"], mine["y"], color=appearance.colour, linewidth=0.7, alpha=0.6, zorder=2)
            ax.vlines(mine["x"], mine["low"], mine["high"], color=appearance.colour, linewidth=0.8, zorder=2)
            for x, y, n in zip(mine["x"], mine["y"], mine["shots"], strict=True):
                ax.plot(
                    [x],
                    [y],
                    color=appearance.colour,
                    marker=appearance.marker,
                    markersize=sizes[n],
                    markeredgecolor="white",
                    zorder=3,
                )
        best = points[points["front"]].sort_values("x")
        line: dict[str, Any] = {
            "color": "black",
            "linewidth": 0.7,
            "linestyle": "--",
            "drawstyle": "steps-post",
            **style.RING,
        }
        ax.plot(best["x"], best["y"], **line, zorder=3.5)
        ax.set(xscale="log", xlabel="seconds per cell, tuning included", ylabel=style.accuracy(datasets))
        ax.grid(axis="x")
        ax.xaxis.set_major_locator(
            LogLocator(subs=(1.0,) if points["x"].max() > 20 * points["x"].min() else (1.0, 2.0, 5.0))
        )
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        shots = [
            Line2D([], [], color=style.GREY, marker="o", linestyle="", markersize=size, label=shots_text(n))
            for n, size in sizes.items()
            if n
        ]
        crowd = style.crowd_key(others, marker="o", markersize=2)
        names = (
            f"best trade-off, {shots_text(int(max(sizes)))}: {', '.join(titles[m] for m in best['series'])}"
        )
        front_key = Line2D([], [], **line, label=style.wrapped(names))
        style.key(figure, appearances, titles, 3, [*crowd, *shots, front_key])
    return figure
