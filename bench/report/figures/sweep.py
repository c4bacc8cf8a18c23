"""Draw accuracy against the values of a swept setting, with a line per number of shots and per method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bench.errors import BenchError
from bench.report.figures import outcomes, scale, series, style, swept
from bench.report.figures.style import Drawn
from bench.report.select import Choice
from bench.report.table import AVERAGE
from bench.report.wording import listed, shots_text
from bench.stats import average_interval

_TICKS = 7  # values that an axis of a column's width can name


def draw(frame: pd.DataFrame, choice: Choice, setting: str | None) -> Drawn:
    """Draw lines with 95 % intervals. Rings mark the method's own value.

    If the method chooses the value itself, its accuracy is a dotted line. The panels are the average of
    several datasets and then every dataset. Raises BenchError for an unknown setting and for fewer than two
    values.
    """
    if setting is None:
        known = ", ".join(swept.there(frame)) or "none"
        raise BenchError(f"plot sweep: name a setting with --setting; these records have sweeps of: {known}")
    which = swept.setting_of(setting, frame)
    rows, notes = swept.rows(frame, choice, which)
    names = sorted(rows["dataset"].unique())
    titles = series.titles(rows)
    several = rows["method"].nunique() > 1
    rows["series"] = [
        f"{m}, {shots_text(n)}" if several else shots_text(n)
        for m, n in zip(rows["method"], rows["shots"], strict=True)
    ]
    labels = {
        s: f"{titles[m]}, {shots_text(n)}" if several else s
        for s, m, n in rows[["series", "method", "shots"]].itertuples(index=False)
    }
    order = list(rows.sort_values(["method", "shots"])["series"].unique())
    points, gaps = table(rows, order, which.name)
    moved = points[points["value"].notna()]
    if not moved.groupby(["panel", "series"])["value"].nunique().gt(1).any():
        there = ", ".join(moved["value"].map(scale.text).unique()) or "none that is complete"
        raise BenchError(
            f"a sweep of {which.name} needs two values, but there is {there}. "
            f"{''.join(f'{gap} ' for gap in gaps)}{swept.advice(frame, choice, which)}"
        )
    panels = [p for p in ([AVERAGE] if len(names) > 1 else []) + names if p in set(moved["panel"])]
    appearances = style.appearances(order)
    # Words are ordered with the method's own value first, then by name.
    place = scale.scale(moved.sort_values("own", ascending=False, kind="stable")["value"])
    points["x"] = [np.nan if v is None else place.at[scale.text(v)] for v in points["value"]]
    method = "" if several else next(iter(titles.values()))
    with style.context():
        wide = min(3, len(panels))
        figure, axes = style.canvas(
            len(panels), wide, style.PAGE if wide > 1 else style.COLUMN, 2.0 if wide > 1 else 2.4
        )
        for ax, panel in zip(axes, panels, strict=True):
            _panel(ax, points[points["panel"] == panel], appearances)
            place.on(ax, _TICKS if wide == 1 else 4)
            first = style.accuracy(names if panel == AVERAGE else [panel])
            ax.set(xlabel=which.name, ylabel=first, title=method if wide == 1 else "")
        if wide > 1 and method:
            figure.suptitle(method, fontsize=7.5)
        more = []
        if points["own"].any() and points[points["own"]]["x"].notna().any():
            more.append(Line2D([], [], **style.RING, linestyle="", label="the method's own value"))
        if points[points["own"]]["x"].isna().any():
            label = "value chosen by the method itself"
            more.append(Line2D([], [], color=style.GREY, linestyle=":", label=label))
        style.key(figure, appearances, labels, 5 if wide > 1 else 3, more)
    where = f"on {listed(names, len(names))}"
    values = ", ".join(place.at)
    alt = f"Accuracy against {which.name} ({values}): {', '.join(labels.values())}, {where}"
    alt = f"{alt}, {method}" if method else alt
    seeds = {
        (str(m), int(str(n))): outcomes.seeds_of(some) for (m, n), some in rows.groupby(["method", "shots"])
    }
    return Drawn(figure, points, alt, (*notes, *series.one_seed(seeds), *gaps))


def table(rows: pd.DataFrame, order: Sequence[str], name: str) -> tuple[pd.DataFrame, list[str]]:
    """Return (panel, series, value, own, y, low, high) in percent, and notes on what is left out.

    ``value`` is None if the method chose it. ``own`` says whether it is the method's own value.
    """
    datasets = sorted(rows["dataset"].unique())
    panels = [(AVERAGE, datasets)] if len(datasets) > 1 else []
    panels += [(d, [d]) for d in datasets]
    made, lacking = [], dict[tuple[str, str], list[str]]()
    for line in order:
        mine = rows[rows["series"] == line]
        seeds = set(mine["seed"])
        # A value that other numbers of shots have counts as missing here.
        others = rows[rows["method"] == mine["method"].iloc[0]]
        by_text = dict(zip(others["text"], others["value"], strict=True))
        for text, value in by_text.items():
            group = mine[mine["text"] == text]
            for panel, names in panels:
                cells = outcomes.by_dataset(group, names, seeds)
                if cells is None:
                    lacking.setdefault((line, panel), []).append(text)
                    continue
                i = average_interval(cells)
                own = bool(group[group["dataset"].isin(names)]["plain"].all())
                made.append((panel, line, value, own, 100 * i.estimate, 100 * i.low, 100 * i.high))
        for panel, names in panels:
            made += _mixed(mine[mine["plain"]], panel, names, seeds)
    points = pd.DataFrame(made, columns=["panel", "series", "value", "own", "y", "low", "high"])
    points["value"] = points["value"].astype(object).where(points["value"].notna(), None)
    shared = {(line, tuple(texts)): list[str]() for (line, _), texts in lacking.items()}
    for (line, panel), texts in lacking.items():
        shared[line, tuple(texts)].append(panel)
    return points, [
        f"Left out{'' if len(datasets) == 1 else f' of {listed(where, len(where))}'}, "
        f"because seeds or datasets are missing or failed: {line} at {name} = "
        f"{listed([t or 'its own choice' for t in texts], len(texts))}."
        for (line, texts), where in shared.items()
    ]


def _mixed(
    plain: pd.DataFrame, panel: str, names: Sequence[str], seeds: set[int]
) -> list[tuple[str, str, None, bool, float, float, float]]:
    """Average plain rows whose own value differs between datasets. The average has no place on the axis."""
    here = plain[plain["dataset"].isin(names)]
    if here["text"].nunique() < 2 or (cells := outcomes.by_dataset(here, names, seeds)) is None:
        return []
    i = average_interval(cells)
    return [(panel, here["series"].iloc[0], None, True, 100 * i.estimate, 100 * i.low, 100 * i.high)]


def _panel(ax: Axes, points: pd.DataFrame, appearances: dict[str, style.Appearance]) -> None:
    band = len(appearances) <= style.BANDS
    for name, appearance in appearances.items():
        mine = points[points["series"] == name]
        on_axis = mine[mine["x"].notna()].sort_values("x")
        if len(on_axis):
            style.series(ax, on_axis, appearance, band)
        for y in mine[mine["x"].isna()]["y"]:
            ax.axhline(y, color=appearance.colour, linestyle=":", linewidth=1.0, zorder=1.8)
        own = on_axis[on_axis["own"]]
        ax.plot(own["x"], own["y"], **style.RING, linestyle="", zorder=4)
