"""Draw the critical difference diagram: average ranks over datasets.

Bars join methods that the ranks do not separate.
"""

from __future__ import annotations

import math
import textwrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.errors import BenchError
from bench.report import select
from bench.report.figures import outcomes, series, style
from bench.report.figures.style import Drawn
from bench.report.select import Choice
from bench.report.wording import p_equation, shots_text
from bench.stats import Friedman, friedman, not_separated

DRAWN = 12  # most methods that a diagram draws; all are ranked

# All sizes are in inches.
_ROW = 0.16  # height of a label
_BAR = 0.09  # height of a bar
_TOP = 0.82  # height of everything above the axis
_LETTER = 0.054  # width of a letter
_RANK = 0.15  # least width of one rank
_LINE = 0.13  # height of a line of the text below
_TICKS = 15  # most numbers below the axis

_BARS = "A bar joins methods whose average ranks differ by less than the critical difference."
_NO_BARS = "There are no bars: any two average ranks differ by the critical difference or more."


def draw(frame: pd.DataFrame, choice: Choice) -> Drawn:
    """Draw Friedman's test with Nemenyi's critical difference at one number of shots.

    By default it is the largest number. All methods are ranked. If there are more than 12, the best 12 are
    drawn, with their ranks among all.
    """
    scores, titles, shots, notes = table(frame, choice)
    try:
        result = friedman(scores)
    except ValueError as error:
        raise BenchError(f"critical difference at {shots_text(shots)}: {error}") from error
    shown = result.ranks.iloc[:DRAWN]
    among = _among(result, shown)
    with style.context():
        figure = _diagram(result, shown, titles, shots_text(shots))
    rows = [("", method, shots, float(shots), rank, rank, rank) for method, rank in shown.items()]
    points = pd.DataFrame(rows, columns=["panel", "series", "shots", "x", "y", "low", "high"])
    order = ", ".join(f"{m} {r:.2f}" for m, r in shown.items())
    alt = f"Average ranks over {result.datasets} datasets{among}, {shots_text(shots)}: {order}"
    what = f"At {shots_text(shots)} on {result.datasets} datasets, Friedman's test has {p_equation(result.p)}"
    cd = f"Nemenyi's critical difference at {100 * result.level:g} % is {result.critical_difference:.2f}"
    notes += [f"The best {len(shown)} are drawn, ranked{among}."] if among else []
    return Drawn(figure, points, alt, (*notes, f"{what}. {cd}."))


def _among(result: Friedman, shown: pd.Series) -> str:
    """Say among how many methods the drawn ones are ranked; the text is empty if all are drawn."""
    return f" among all {len(result.ranks)} methods" if len(shown) < len(result.ranks) else ""


def table(frame: pd.DataFrame, choice: Choice) -> tuple[pd.DataFrame, dict[str, str], int, list[str]]:
    """Return mean accuracies (datasets x methods), the methods' titles, the number of shots, and notes.

    Methods without labels compete at every number of shots. Methods that lack a dataset or a seed are left
    out and named, and so are methods with other seeds than most, as in tables. Raises BenchError if fewer
    than three methods are left.
    """
    own, notes = select.own_tests(frame, choice)
    shots = int(max(own["shots"]))
    own = own[own["shots"].isin([0, shots])]
    datasets = sorted(own["dataset"].unique())
    scores: dict[str, list[float]] = {}
    gaps: dict[tuple[str, int], list[str]] = {}
    seeds: dict[tuple[str, int], tuple[int, ...]] = {}
    for method, group in own.groupby("method"):
        cells = outcomes.by_dataset(group, datasets, set(group["seed"]))
        if cells is None:
            gaps[str(method), shots] = []
        else:
            scores[str(method)] = [float(cell.mean()) for cell in cells]
            seeds[str(method), int(max(group["shots"]))] = outcomes.seeds_of(group)
    apart = series.of_other_seeds(seeds)
    for method, _ in apart:
        del scores[method]
    if apart:
        which = series.with_seeds(seeds, apart)
        notes.append(f"Not ranked, because they have other seeds than most: {which}.")
    notes += series.gaps(gaps)
    if len(scores) < 3 or len(datasets) < 2:
        raise BenchError(
            "ranks need at least 3 methods on 2 datasets, but the records at "
            f"{shots_text(shots)} have {len(scores)} complete methods of the same seeds on {len(datasets)}; "
            f"make more with `{select.run_command(choice, f'--shots {shots}')}`"
        )
    return pd.DataFrame(scores, index=datasets), series.titles(own), shots, notes


def _diagram(result: Friedman, shown: pd.Series, titles: dict[str, str], shots: str) -> Figure:
    ranks = [(titles[str(m)], rank) for m, rank in shown.items()]
    half = (len(ranks) + 1) // 2
    among = _among(result, shown)
    last = math.ceil(shown.max()) if among else len(result.ranks)
    bars = _bars(result, shown)
    height = _TOP + _BAR * len(bars) + _ROW * (half + 0.5)
    left, beside = (
        0.18 + _LETTER * (5 + max(len(name) for name, _ in side)) for side in (ranks[:half], ranks[half:])
    )
    width = style.COLUMN if left + beside + _RANK * last <= style.COLUMN else style.PAGE
    below = textwrap.wrap(_BARS if bars else _NO_BARS, int((width - 0.3) / _LETTER))
    height += _LINE * len(below) + 0.1
    right = width - beside
    figure = Figure(figsize=(width, height))
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.axis("off")

    def at(rank: float) -> float:
        return left + (rank - 1) / (last - 1) * (right - left)

    every = math.ceil(last / _TICKS)
    ticks = [(at(i), str(i)) for i in range(1, last + 1, every)]
    _axis(ax, result, at(1), at(last), ticks, at(2) - at(1))
    what = f"average rank{among} over {result.datasets} datasets, {shots} (1 = best)"
    ax.text(width / 2, _TOP - 0.24, what, ha="center", va="bottom", fontsize=7.5)
    ax.text(width / 2, height - 0.06, "\n".join(below), ha="center", va="bottom", fontsize=7)
    first_row = _TOP + _BAR * len(bars)
    for i, (name, rank) in enumerate(ranks):
        first = i < half
        y = first_row + _ROW * ((i if first else len(ranks) - 1 - i) + 0.6)
        edge = left - 0.1 if first else right + 0.1
        ax.plot([at(rank), at(rank), edge], [_TOP, y, y], color="0.2", linewidth=0.7, solid_joinstyle="miter")
        text = f"{name} {rank:.2f}" if first else f"{rank:.2f} {name}"
        ax.text(
            edge - 0.04 if first else edge + 0.04,
            y,
            text,
            ha="right" if first else "left",
            va="center",
            fontsize=7,
        )
    colour = style.appearances(["bar"])["bar"].colour
    for i, group in enumerate(bars):
        y = _TOP + _BAR * (i + 0.8)
        ends = at(result.ranks[group[0]]) - 0.03, at(result.ranks[group[-1]]) + 0.03
        ax.plot(ends, [y, y], color=colour, linewidth=2.4, solid_capstyle="butt", zorder=3)
    return figure


def _bars(result: Friedman, shown: pd.Series) -> list[tuple[str, ...]]:
    """Return the bars between drawn methods. A bar that goes on to others ends at the last drawn one."""
    bars: list[tuple[str, ...]] = []
    for group in not_separated(result):
        drawn = tuple(name for name in group if name in shown.index)
        if len(drawn) > 1 and not any(set(drawn) <= set(bar) for bar in bars):
            bars.append(drawn)
    return bars


def _axis(
    ax: Axes, result: Friedman, start: float, end: float, ticks: list[tuple[float, str]], rank: float
) -> None:
    """Draw the rank axis with its ticks, and the critical difference as a ruler above it.

    ``rank``: the length of one rank.
    """
    ax.plot([start, end], [_TOP, _TOP], color="0.2", linewidth=0.8)
    for x, label in ticks:
        ax.plot([x, x], [_TOP, _TOP - 0.05], color="0.2", linewidth=0.8)
        ax.text(x, _TOP - 0.08, label, ha="center", va="bottom", fontsize=7)
    length = result.critical_difference * rank
    shown = min(length, end - start)
    ax.plot([start, start + shown], [0.22, 0.22], color="0.2", linewidth=1.0)
    for x in (start, start + shown):
        ax.plot([x, x], [0.18, 0.26], color="0.2", linewidth=1.0)
    more = "" if shown == length else ", longer than the axis"
    ax.text(
        start,
        0.14,
        f"critical difference {result.critical_difference:.2f}{more}",
        ha="left",
        va="bottom",
        fontsize=7,
    )
