"""Average accuracy against the seconds one cell takes, tuning included: what accuracy costs."""

from __future__ import annotations

from pathlib import Path

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
from bench.report.wording import shots_text
from bench.stats import average_interval


def draw(frame: pd.DataFrame, choice: Choice) -> Drawn:
    """One marker per method and shots, joined in the order of shots; seconds on a log axis.

    Seconds are the mean over datasets and seeds of preparing, training every configuration, searching and
    evaluating, and of the fits the method builds on; encoding is shared by all methods and not in them.
    """
    own, notes = select.own_tests(frame, choice)
    datasets = sorted(own["dataset"].unique())
    rows, machines = [], set()
    gaps: dict[tuple[str, int], list[str]] = {}
    for (method, shots), group in own.groupby(["method", "shots"]):
        cells = outcomes.by_dataset(group, datasets, set(group["seed"]))
        if cells is None:
            gaps[str(method), int(str(shots))] = []
            continue
        i = average_interval(cells)
        timed = [cost(path) for path in group[group["status"] == "ok"]["path"]]
        machines |= {name for _, name in timed}
        seconds = sum(s for s, _ in timed) / len(timed)
        rows.append(("", method, shots, seconds, 100 * i.estimate, 100 * i.low, 100 * i.high))
    points = pd.DataFrame(rows, columns=["panel", "series", "shots", "x", "y", "low", "high"])
    if not (points["shots"] > 0).any():
        command = select.run_command(choice, "")
        lacking = "; ".join(series.gaps(gaps))
        raise BenchError(
            f"nothing is complete: {lacking}; "
            f"`{command}` runs what is missing, --datasets narrows the average"
        )
    if len(machines) > 1:
        notes.append(f"seconds of different machines are mixed: {', '.join(sorted(machines))}")
    elif machines:
        notes.append(f"measured on {min(machines)}; encoding is not counted")
    alt = f"Average accuracy over {', '.join(datasets)} against seconds per cell"
    chosen, others = series.coloured(own[own["method"].isin(points["series"])], choice)
    flat = sorted(set(points["series"]) - {*chosen, *others})
    figure = _scatter(points, [*chosen, *flat], others, series.titles(own))
    return Drawn(figure, points, alt, (*notes, *series.others(others), *series.gaps(gaps)))


def cost(path: str) -> tuple[float, str]:
    """Seconds of an evaluation with the fits behind it, and the machine's name."""
    file = Path(path)
    evaluation = store.read(file)
    if not isinstance(evaluation, EvaluationRecord):
        raise BenchError(f"{path}: the record has gone; load the results again")
    fitting = sum(sum(fit.seconds.values()) for fit in store.behind(file, evaluation))
    return evaluation.seconds + fitting, evaluation.provenance.device_name or "an unnamed machine"


def _scatter(points: pd.DataFrame, coloured: list[str], others: list[str], titles: dict[str, str]) -> Figure:
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
        ax.set(xscale="log", xlabel="seconds per cell, tuning included", ylabel="average accuracy (%)")
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
        style.key(figure, appearances, titles, 3, [*style.crowd_key(others), *shots])
    return figure
