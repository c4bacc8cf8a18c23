"""Draw the most confused pairs of classes of one dataset as bars.

Legend: S seeds, n test images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from bench.errors import BenchError
from bench.metrics import confusions
from bench.names import counted
from bench.report import classnames
from bench.report.classnames import ClassNames
from bench.report.figures import kept, style
from bench.report.figures.kept import Kept
from bench.report.figures.style import Drawn
from bench.report.select import Choice
from bench.stats import mean_interval

MOST = 4  # methods beside one another
PAIRS = 15  # pairs that are drawn of one method
_OF_SEVERAL = 10  # pairs that are drawn of several methods
_ROW = 0.17  # inches, the height of a bar, and of the least row
_LETTER = 0.052  # inches, the width of a letter
_LONGEST = 44  # letters of a pair
_HATCHES = ("", "....", "////", "xxxx")  # tell methods apart in print without colour

Pair = tuple[int, int]  # the true class, and the one that it is taken for


def draw(
    frame: pd.DataFrame,
    choice: Choice,
    written: Mapping[str, str] | None = None,
    data_root: Path | None = None,
) -> Drawn:
    """Draw for each pair in which share of the true class's images the other class is predicted.

    The pairs are those with the most such predictions over all seeds: of several methods, the worst pairs of
    each in turn. Shares are means over
    seeds, with 95 % intervals in which an image counts once however many seeds saw it. The class names are
    read where ``written`` and ``data_root`` say, as ``classnames`` does. Raises BenchError if a choice is
    left open, and if no prediction is wrong.
    """
    own, notes = kept.rows_of(frame, choice, "confusion")
    methods, remarks = kept.read(own, choice, "confusion", (), MOST)
    pairs = most_confused(methods)
    if not pairs:
        raise BenchError(f"plot confusion: no prediction is wrong on {kept.place(own, methods)}")
    labels = methods[0].outputs[0].labels
    if any(not np.array_equal(one.outputs[0].labels, labels) for one in methods):
        raise BenchError("plot confusion: methods were measured on different test images; run them again")
    found = classnames.of_rows(own, written, data_root)
    texts = [_text(found, pair) for pair in pairs]
    points = _table(methods, pairs, texts)
    where = kept.place(own, methods)
    with style.context():
        height = _ROW * max(1.2, 0.85 * len(methods)) * len(pairs) + 0.55
        long = _LETTER * max(map(len, texts)) > style.COLUMN / 2
        figure, (ax,) = style.canvas(1, 1, style.PAGE if long else style.COLUMN, height)
        appearances = style.appearances([one.method for one in methods])
        _bars(ax, points, texts, appearances)
        only = f"{methods[0].title}: " if len(methods) == 1 else ""
        ax.set_title(only + where)
        ax.set(xlabel="share of the true class's test images (%)", ylabel="true class → predicted class")
        if len(methods) > 1:
            style.below(figure, _key(methods, appearances), len(methods))
    first = points.iloc[0]
    alt = (
        f"Most confused pairs of classes on {where}, {', '.join(appearances)}; "
        f"the first is {first['pair']} with {first['y']:.1f} % by {first['series']}"
    )
    which = "with the most wrong predictions"
    which += ", the worst of each method in turn" if len(methods) > 1 else ""
    lines = [f"Drawn: {counted(len(pairs), 'pair')} {which}. The lines are 95 % intervals of one pair each."]
    lines += [found.why] if found.why else []
    return Drawn(figure, points, alt, (*notes, *remarks, *lines))


def most_confused(methods: Sequence[Kept]) -> list[Pair]:
    """Return the pairs with the most wrong predictions: the worst of each method in turn, each pair once.

    Of pairs with as many, that of the lower classes stands first. The methods of most errors would otherwise
    choose all pairs.
    """
    worst = []
    for one in methods:
        counts = {(row.label, row.taken_for): row.times for row in confusions(one.outputs)}
        worst.append(sorted(counts, key=lambda pair: (-counts[pair], pair)))
    in_turn = [pair for some in zip_longest(*worst) for pair in some if pair is not None]
    return list(dict.fromkeys(in_turn))[: PAIRS if len(methods) == 1 else _OF_SEVERAL]


def share_of(one: Kept, pair: Pair) -> tuple[float, float, float]:
    """Return the share of the true class's images that are taken for the other class, and its interval.

    They are in percent. The ends of the interval are NaN for a class of one image, which says nothing about
    others.
    """
    label, other = pair
    mine = one.outputs[0].labels == label
    taken = np.stack([outputs.top1[mine] == other for outputs in one.outputs])
    if taken.shape[1] < 2:
        return 100 * float(taken.mean()), float("nan"), float("nan")
    interval = mean_interval(taken)
    return 100 * interval.estimate, 100 * interval.low, 100 * interval.high


def _text(names: ClassNames, pair: Pair) -> str:
    """Return a pair as ``cat → dog``, with long names cut."""
    most = (_LONGEST - 3) // 2
    return " → ".join(
        name if len(name) <= most else f"{name[: most - 1]}…" for name in map(names.shown, pair)
    )


def _table(methods: Sequence[Kept], pairs: Sequence[Pair], texts: Sequence[str]) -> pd.DataFrame:
    """Return the bars (panel, series, shots, x, y, low, high, pair) in percent; ``x`` is the pair's place."""
    rows = []
    for one in methods:
        for place, (pair, text) in enumerate(zip(pairs, texts, strict=True)):
            rows.append(("", one.method, one.shots, float(place), *share_of(one, pair), text))
    return pd.DataFrame(rows, columns=["panel", "series", "shots", "x", "y", "low", "high", "pair"])


def _bars(
    ax: Axes, points: pd.DataFrame, texts: Sequence[str], appearances: dict[str, style.Appearance]
) -> None:
    thick = 0.8 / len(appearances)
    for i, (method, appearance) in enumerate(appearances.items()):
        own = points[points["series"] == method]
        at = own["x"] + thick * (i - (len(appearances) - 1) / 2)
        ax.barh(
            at, own["y"], thick, color=appearance.colour, alpha=0.75, edgecolor="white", hatch=_HATCHES[i]
        )
        ax.hlines(at, own["low"], own["high"], color="black", linewidth=0.8, zorder=3)
    ax.set_yticks(range(len(texts)), texts)
    ax.set(
        ylim=(len(texts) - 0.5, -0.5),
        xlim=(0, min(100.0, 1.05 * float(np.nanmax(points[["y", "high"]])))),
    )
    ax.grid(True, axis="x")
    ax.grid(False, axis="y")


def _key(methods: Sequence[Kept], appearances: dict[str, style.Appearance]) -> list[Patch]:
    return [
        Patch(
            facecolor=appearances[one.method].colour,
            alpha=0.75,
            edgecolor="white",
            hatch=_HATCHES[i],
            label=one.title,
        )
        for i, one in enumerate(methods)
    ]
