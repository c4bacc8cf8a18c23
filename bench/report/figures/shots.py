"""Draw accuracy against images per class: the average, then one panel per dataset (Fig. 2 of the paper)."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bench.errors import BenchError
from bench.report import select
from bench.report.figures import outcomes, series, style
from bench.report.figures.outcomes import Outcomes
from bench.report.figures.style import Drawn
from bench.report.select import Choice
from bench.report.table import AVERAGE
from bench.stats import average_intervals

COLUMNS = 4
_SPREAD = 0.3  # share of a doubling over which the bars of one number of shots are spread


def draw(frame: pd.DataFrame, choice: Choice) -> Drawn:
    """Draw lines with 95 % intervals for methods that use labels, and dashed grey lines for the others.

    If there are many methods, some have colours (``series.coloured``) and the others are thin grey lines.

    An interval covers other test images of these datasets and, if there are several seeds, other draws of the
    support set. It says nothing about other datasets or other classes.
    """
    own, notes = select.own_tests(frame, choice)
    points, remarks = table(own)
    few = points[points["shots"] > 0]
    if not len(few):
        raise BenchError(
            f"no method has all results that the figure needs. {' '.join(remarks)} "
            f"`{select.run_command(choice, '')}` runs what is missing"
        )
    chosen, others = series.coloured(own[own["method"].isin(few["series"])], choice)
    appearances = style.appearances(chosen)
    flat = style.greys(sorted(set(points["series"]) - {*chosen, *others}))
    names = sorted(set(few["panel"]) - {AVERAGE})
    panels = [AVERAGE, *names] if AVERAGE in set(few["panel"]) and own["dataset"].nunique() > 1 else names
    ticks = sorted(few["shots"].unique())
    with style.context():
        wide = min(COLUMNS, len(panels))
        page = wide > 2
        figure, axes = style.canvas(
            len(panels), wide, style.PAGE if page else style.COLUMN, 1.55 if page else 2.3
        )
        for i, (ax, panel) in enumerate(zip(axes, panels, strict=True)):
            _panel(ax, points[points["panel"] == panel], appearances, flat, others, ticks)
            ax.set_title(panel, fontweight="bold" if panel == AVERAGE else "normal")
            ax.set(
                ylabel=("accuracy (%)" if len(panels) > 1 else style.accuracy(names))
                if i % wide == 0
                else "",
                xlabel=style.SHOTS if i + wide >= len(panels) else "",
            )
        style.key(
            figure, {**appearances, **flat}, series.titles(own), 5 if page else 3, style.crowd_key(others)
        )
    more = f" and {len(others)} other methods" if others else ""
    alt = f"Test accuracy against shots, {', '.join(appearances)}{more}, on {', '.join(names)}"
    return Drawn(figure, points, alt, (*notes, *series.others(others), *remarks))


def table(own: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return (panel, series, shots, x, y, low, high) in percent, and notes on seeds and on gaps."""
    datasets = sorted(own["dataset"].unique())
    panels = [(AVERAGE, datasets), *((d, [d]) for d in datasets)]
    drawn: dict[str, dict[tuple[str, int], list[Outcomes]]] = {panel: {} for panel, _ in panels}
    seeds: dict[tuple[str, int], tuple[int, ...]] = {}
    gaps: dict[tuple[str, int], list[str]] = {}
    for (method, n), group in own.groupby(["method", "shots"]):
        point, mine = (str(method), int(str(n))), outcomes.seeds_of(group)
        cells = {d: outcomes.by_dataset(group, [d], set(mine)) for d in datasets}
        for panel, names in panels:
            complete = [one for d in names for one in cells[d] or ()]
            if len(complete) < len(names):
                gaps.setdefault(point, []).append(panel)
            else:
                drawn[panel][point] = complete
                seeds[point] = mine
    rows = [
        (panel, *point, float(point[1]), 100 * i.estimate, 100 * i.low, 100 * i.high)
        for panel, points in drawn.items()
        if points
        for point, i in zip(points, average_intervals(list(points.values())), strict=True)
    ]
    columns = ["panel", "series", "shots", "x", "y", "low", "high"]
    notes = [*series.one_seed(seeds), *series.other_seeds(seeds)]
    notes += series.gaps(gaps, [AVERAGE, *datasets])
    return pd.DataFrame(rows, columns=columns), notes


def _panel(
    ax: Axes,
    points: pd.DataFrame,
    appearances: dict[str, style.Appearance],
    flat: dict[str, str],
    others: list[str],
    ticks: list[int],
) -> None:
    ax.set_xscale("log", base=2)
    for name in others:
        own = points[points["series"] == name].sort_values("x")
        ax.plot(own["x"], own["y"], **style.CROWD)
    for name, dashes in flat.items():
        for y in points[points["series"] == name]["y"]:
            ax.axhline(y, color=style.GREY, linestyle=dashes, linewidth=0.9, zorder=1)
    band = len(appearances) <= style.BANDS
    for i, (name, appearance) in enumerate(appearances.items()):
        own = points[(points["series"] == name) & (points["shots"] > 0)].sort_values("x")
        if len(own):
            aside = 1.0 if band else 2 ** (_SPREAD * (i / (len(appearances) - 1) - 0.5))
            style.series(ax, own.assign(x=own["x"] * aside), appearance, band and len(own) > 1)
    ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.minorticks_off()
    ax.set_xlim(ticks[0] / 1.25, ticks[-1] * 1.25)
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
