"""Draw risk against coverage: how often a method errs if it answers only the images that it is surest of.

Legend: S seeds, n test images, G coverages of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from bench.metrics import METRICS, Outputs, risk_coverage
from bench.report.figures import kept, style
from bench.report.figures.kept import Kept
from bench.report.figures.style import Drawn
from bench.report.select import Choice
from bench.stats import Interval, mean_interval

MOST = 8  # methods that one panel can tell apart
GRID = np.arange(1, 41) / 40  # coverages at which the curve is drawn
_BAND = 10  # least coverage with a band, in percent: few images below it tell little
_EVERY = 8  # coverages from one marker to the next
_AREA = METRICS["aurc"]


def draw(frame: pd.DataFrame, choice: Choice) -> Drawn:
    """Draw a curve per method, the mean over seeds, with the area under it (AURC) in the legend.

    Up to ``style.BANDS`` methods have bands: 95 % intervals at each coverage, for other test images and, if
    there are several seeds, for other draws. Raises BenchError if a choice is left open, or if no record has
    probabilities.
    """
    own, notes = kept.rows_of(frame, choice, "risk-coverage")
    methods, remarks = kept.read(own, choice, "risk-coverage", _AREA.needs, MOST)
    points = pd.concat([_table(one) for one in methods], ignore_index=True)
    areas = {one.method: _area(one) for one in methods}
    appearances = style.appearances([one.method for one in methods])
    titles = {one.method: f"{one.title} (AURC\u00a0{_text(areas[one.method])}\u00a0%)" for one in methods}
    where = kept.place(own, methods)
    band = len(methods) <= style.BANDS
    with style.context():
        figure, (ax,) = style.canvas(1, 1, style.COLUMN, 2.6)
        for i, one in enumerate(methods):
            _curve(ax, points[points["series"] == one.method], appearances[one.method], i, band)
        ax.set(
            title=where,
            xlabel="coverage: share of images answered, surest first (%)",
            ylabel="risk: wrong answers (%)",
            xlim=(0, 100),
        )
        ax.set_ylim(bottom=0)
        style.key(figure, appearances, titles, 2)
    listed = ", ".join(f"{name} {_text(area)} %" for name, area in areas.items())
    alt = f"Risk against coverage on {where}; area under the curve: {listed}"
    lines = ["AURC is the mean of the risk over all coverages, averaged over seeds: less is better."]
    if band:
        lines.append(
            f"Bands, drawn from a coverage of {_BAND} % on, are 95 % intervals at one coverage each. They "
            "are not paired: two methods may differ though their bands overlap."
        )
    else:
        lines.append(f"More than {style.BANDS} methods are drawn without bands.")
    return Drawn(figure, points, alt, (*notes, *remarks, *lines))


def interval_at(outputs: Sequence[Outputs], coverage: float) -> Interval:
    """Return the interval of the risk at a coverage, for the share of errors above the threshold there.

    The threshold of each seed is the confidence of the last image that is answered, and is taken as fixed.
    The value of an image is then the risk plus, if it is answered, (wrong - risk) / coverage. If no answer is
    wrong, the interval is that of as many right answers in a row. Images of equal confidence at the threshold
    are answered in part, in equal shares.
    """
    rows = [_terms(one, coverage) for one in outputs]
    risks = [risk for risk, _ in rows]
    if not any(risks):
        answered = max(1, round(coverage * outputs[0].n))
        return mean_interval(np.zeros((len(outputs), answered)))
    return mean_interval(np.stack([values for _, values in rows]))


def _terms(outputs: Outputs, coverage: float) -> tuple[float, NDArray[np.float64]]:
    """Return the risk at a coverage, and the values (n,) whose mean it is."""
    _, risks = risk_coverage(outputs)
    answered = max(1, round(coverage * outputs.n))
    risk = float(risks[answered - 1])
    confidence = outputs.confidence()
    threshold = -np.sort(-confidence)[answered - 1]
    above, at = confidence > threshold, confidence == threshold
    weight = above + at * (answered - above.sum()) / at.sum()
    return risk, risk + weight * (~outputs.right - risk) * outputs.n / answered


def _area(one: Kept) -> float:
    """Return the area under the curve as tables print it: the mean over seeds."""
    return float(np.mean([_AREA.value(outputs) for outputs in one.outputs])) * _AREA.scale


def _text(area: float) -> str:
    return f"{area:.{_AREA.digits}f}"


def _table(one: Kept) -> pd.DataFrame:
    """Return the curve (panel, series, shots, x, y, low, high) in percent, at the coverages of ``GRID``."""
    rows = []
    for coverage in GRID[np.round(GRID * one.outputs[0].n) >= 2]:  # one answer has no interval
        interval = interval_at(one.outputs, float(coverage))
        ends = (100 * interval.estimate, 100 * interval.low, 100 * interval.high)
        rows.append(("", one.method, one.shots, 100 * float(coverage), *ends))
    return pd.DataFrame(rows, columns=["panel", "series", "shots", "x", "y", "low", "high"])


def _curve(ax: Axes, points: pd.DataFrame, appearance: style.Appearance, place: int, band: bool) -> None:
    """Draw a line with few markers, which begin elsewhere on each line so that they do not hide others."""
    ax.plot(
        points["x"],
        points["y"],
        color=appearance.colour,
        marker=appearance.marker,
        linestyle=appearance.dashes,
        markevery=(place % _EVERY, _EVERY),
        markeredgecolor="white",
        markeredgewidth=0.75,
        zorder=3,
    )
    if band:
        wide = points[points["x"] >= _BAND]
        ax.fill_between(
            wide["x"], wide["low"], wide["high"], color=appearance.colour, alpha=0.15, linewidth=0
        )
