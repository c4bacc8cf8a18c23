"""Set how figures look: sizes for a two-column page, type that stays readable there, and distinct colours."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import matplotlib
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

COLUMN = 3.4  # inches, the width of one column of a paper
PAGE = 7.0  # inches, the width of the whole page
SHOTS = "shots (images per class)"  # the axis of shots
GREY = "0.35"
# Series that are drawn for comparison only.
CROWD: dict[str, Any] = {
    "color": "0.78",
    "linewidth": 0.6,
    "zorder": 1.5,
}
PUBLISHED: dict[str, Any] = {
    "linestyle": "",
    "markerfacecolor": "white",
    "markeredgewidth": 0.9,
    "markersize": 5,
    "zorder": 4,
}
_LABEL = 28  # letters in a line of a narrow figure's legend
_LEGEND = 0.4  # inches, the height of a legend of two lines, which the panels' heights allow for
_RC = {
    **sns.axes_style("ticks"),
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so it is on every machine
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.titlepad": 3,
    "axes.labelpad": 2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.linewidth": 0.4,
    "grid.color": "0.9",
    "lines.linewidth": 1.1,
    "lines.markersize": 3.6,
    "lines.markeredgewidth": 0.5,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "text.parse_math": False,  # a dollar sign in a name stays a dollar sign
    "svg.hashsalt": "bench",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}
# Seaborn's "colorblind" without its yellow, pink and grey, which vanish on white, and with black. The shape
# of the marker and the dashes tell series apart too, for print without colour.
_COLOURS = [*(sns.color_palette("colorblind").as_hex()[i] for i in (0, 1, 2, 4, 9, 3, 5)), "#222222"]
_MARKERS = "osD^vPX<"
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.2)), (0, (1.2, 1)), (0, (5, 1, 1, 1)))


@dataclass(frozen=True)
class Drawn:
    """A figure, its numbers (panel, series, x, y, low, high), a description in words, and notes."""

    figure: Figure
    points: pd.DataFrame
    alt: str
    notes: tuple[str, ...] = ()


class Appearance(NamedTuple):
    """The colour, marker and dashes of one series."""

    colour: str
    marker: str
    dashes: Any


def context() -> AbstractContextManager[None]:
    """Return a context with the settings of figures. Draw and write figures inside it."""
    return matplotlib.rc_context(_RC)


def appearances(series: Iterable[str]) -> dict[str, Appearance]:
    """Return an appearance for every series. No two are alike, with or without lines.

    Colours vary first; then come other dashes and the next marker.
    """
    n = len(_COLOURS)
    return {
        name: Appearance(
            _COLOURS[i % n], _MARKERS[(i + i // n) % len(_MARKERS)], _DASHES[i // n % len(_DASHES)]
        )
        for i, name in enumerate(dict.fromkeys(series))
    }


def canvas(panels: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of ``panels`` axes in rows of ``columns``.

    ``width`` of the figure and ``height`` of one row are in inches.
    """
    rows = -(-panels // columns)
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for ax in axes[panels:]:
        ax.remove()
    return figure, axes[:panels]


def accuracy(datasets: Sequence[str]) -> str:
    """Return the name of an axis of accuracies: on the only dataset, or averaged over several."""
    return (
        f"accuracy on {datasets[0]} (%)"
        if len(datasets) == 1
        else f"average accuracy, {len(datasets)} datasets (%)"
    )


RING: dict[str, Any] = {  # drawn around the marker of a point that the legend explains
    "marker": "o",
    "markersize": 7,
    "markerfacecolor": "none",
    "markeredgecolor": "black",
    "markeredgewidth": 0.9,
}
BANDS = 5  # more bands than this in one panel hide one another, so bars are drawn instead


def series(ax: Axes, points: pd.DataFrame, appearance: Appearance, band: bool = True) -> None:
    """Draw a line with markers through (x, y), and its interval as a band or, without ``band``, as bars."""
    ax.plot(
        points["x"],
        points["y"],
        color=appearance.colour,
        marker=appearance.marker,
        linestyle=appearance.dashes,
        markeredgecolor="white",
        markeredgewidth=0.75,
        zorder=3,
    )
    if band:
        ax.fill_between(
            points["x"],
            points["low"],
            points["high"],
            color=appearance.colour,
            alpha=0.15,
            linewidth=0,
            zorder=2,
        )
    else:
        ax.vlines(
            points["x"], points["low"], points["high"], color=appearance.colour, linewidth=0.8, zorder=2
        )


def greys(names: Sequence[str]) -> dict[str, str]:
    """Return dashes for plain grey lines, which have no place on the x axis."""
    return {name: ("--", ":", "-.")[i % 3] for i, name in enumerate(names)}


def crowd_key(names: Sequence[str], **marks: Any) -> list[Line2D]:
    """Return the legend's line for the series that are drawn as ``CROWD``, with these markers."""
    label = f"{len(names)} other method{'s' if len(names) > 1 else ''}"
    return [Line2D([], [], **CROWD, **marks, label=label)] if names else []


def published_key(any_drawn: bool) -> list[Line2D]:
    """Return the legend's line for published numbers, if some are drawn."""
    return [Line2D([], [], color=GREY, marker="o", **PUBLISHED, label="published")] if any_drawn else []


def wrapped(label: str) -> str:
    """Break a label into lines that fit into the legend of a narrow figure."""
    return textwrap.fill(label, _LABEL, break_on_hyphens=False)


def key(
    figure: Figure,
    series: Mapping[str, Appearance | str],
    titles: Mapping[str, str],
    columns: int,
    more: Sequence[Line2D] = (),
) -> None:
    """Draw one legend for all panels, below them, in as many of ``columns`` columns as the width allows.

    The figure grows by the height that the legend has beyond two lines, so that the panels keep their height.
    A string instead of an appearance is a plain grey line with these dashes.
    """
    width = figure.get_figwidth()
    handles: list[Line2D] = []
    for name, appearance in series.items():
        label = titles.get(name, name)
        label = wrapped(label) if width <= COLUMN else label
        if isinstance(appearance, str):
            handles.append(Line2D([], [], color=GREY, linestyle=cast(Any, appearance), label=label))
        else:
            line = {
                "color": appearance.colour,
                "marker": appearance.marker,
                "linestyle": appearance.dashes,
                "markeredgecolor": "white",
            }
            handles.append(Line2D([], [], label=label, **line))
    below(figure, [*handles, *more], columns)


def below(figure: Figure, handles: Sequence[Artist], columns: int) -> None:
    """Draw one legend of these handles below all panels, as ``key`` does."""
    width, height = figure.get_size_inches()
    for many in range(min(columns, len(handles)), 0, -1):
        legend = figure.legend(
            handles=list(handles), loc="outside lower center", ncols=many, handlelength=2.6, columnspacing=1.2
        )
        box = legend.get_window_extent()
        if box.width <= width * figure.dpi or many == 1:
            break
        legend.remove()
    figure.set_figheight(height + max(0.0, box.height / figure.dpi - _LEGEND))
