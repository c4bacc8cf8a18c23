"""Draw explanations as figures, and write them as PNG files.

Legend: S grid positions a side, P parts, V models.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from bench.explain.picture import Picture
from bench.explain.shapley import Shapley
from bench.files import write_bytes
from bench.names import shown

_CELL = 1.45  # inches, one panel
_BAR = 0.62  # inches, the width of a colour bar with its name
_LINE = 0.125  # inches, one line of a title
_LETTERS = 22  # most letters in a line of a panel's title
_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "text.parse_math": False,  # a dollar sign in a name stays a dollar sign
    "axes.titlesize": 7.5,
    "axes.titlepad": 3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
}
_BEFORE, _AFTER = "#9aa0a6", "#0173b2"


def save(figure: Figure, path: Path, dpi: int = 200) -> None:
    """Write a figure as a PNG file."""
    out = io.BytesIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(out, format="png", dpi=dpi, metadata={"Software": None})
    write_bytes(path, out.getvalue())


def caption(true: str | None, predicted: Sequence[str], explained: str) -> str:
    """Write the title of a picture: its true class (None: not known), and what the models predict.

    ``explained`` is the class that the maps explain. It is named if it is neither the true class nor, if that
    is not known, the prediction after the fit.
    """
    true = None if true is None else shown(true)
    predicted, explained = [*map(shown, predicted)], shown(explained)
    lines = [f"true: {true}" if true is not None else "true: not known"]
    words = ("before", "after")
    if len(set(predicted)) == 1:
        lines.append(f"predicted: {predicted[0]}")
    else:
        lines += [f"predicted {word}: {name}" for word, name in zip(words, predicted, strict=False)]
    if explained != (true or predicted[-1]):
        lines.append(f"explained: {explained}")
    return "\n".join(textwrap.fill(line, _LETTERS, break_on_hyphens=False) for line in lines)


def _panels(rows: int, columns: int, lines: int = 1, bars: int = 1) -> tuple[Figure, np.ndarray]:
    """Return a figure of square panels below titles of ``lines`` lines, with room for colour bars."""
    size = (columns * _CELL + bars * _BAR, rows * (_CELL + 0.08 + _LINE * lines))
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _bar(figure: Figure, image: AxesImage, axes: Sequence[Axes], name: str, high: float = 1.0) -> None:
    """Draw the colour bar of ``image`` to the right of ``axes``, or at their foot if ``high`` is below 1."""
    bar = figure.colorbar(
        image,
        ax=list(axes),
        aspect=14 * high,
        pad=0.02,
        fraction=0.12 / len(axes),
        shrink=high,
        anchor=(0.0, 0.0 if high < 1 else 0.5),
    )
    bar.set_label(name, fontsize=6.5)
    bar.ax.tick_params(labelsize=6.5, width=0.5, length=2)
    bar.outline.set_linewidth(0.5)
    bar.locator = MaxNLocator(4)


def _picture(ax: Axes, pixels: np.ndarray, title: str = "") -> None:
    ax.imshow(pixels, extent=(0, pixels.shape[1], pixels.shape[0], 0))
    ax.set_title(title)
    ax.set_axis_off()


def _heat(
    ax: Axes, pixels: np.ndarray, map_SS: np.ndarray, title: str, top: float, low: float = 0.0
) -> AxesImage:
    """Draw a map over the grey image, as coarse as it is, with colours from ``low`` to ``top``."""
    side = pixels.shape[0]
    ax.imshow(pixels.mean(-1), cmap="gray", vmin=0, vmax=255, extent=(0, side, side, 0))
    image = ax.imshow(map_SS, cmap="inferno", alpha=0.6, vmin=low, vmax=top, extent=(0, side, side, 0))
    ax.set_title(title)
    ax.set_axis_off()
    return image


def correspondence(
    first: Picture,
    second: Picture,
    at: tuple[float, float],
    stages: Mapping[str, tuple[np.ndarray, tuple[int, int]]],
    classes: tuple[str | None, str | None] = (None, None),
) -> Figure:
    """Draw the query point in the first image and, for every stage, the similarity (S, S) in the second.

    A cross marks the peak of each map. All stages share one colour scale, the cosine.

    ``stages``: a name to the map and the query's (row, column). A frame on the first image shows the cell of
    the query. ``classes``: the true classes of the two images, None if not known.
    """
    low = min(0.0, *(float(map_SS.min()) for map_SS, _ in stages.values()))
    with matplotlib.rc_context(_RC):
        titles = [
            "\n".join([what, *(textwrap.wrap(f"true: {name}", _LETTERS) if name is not None else [])])
            for what, name in zip(("query (cross)", "searched"), classes, strict=True)
        ]
        figure, axes = _panels(1, 2 + len(stages), max(2, *(t.count("\n") + 1 for t in titles)))
        _picture(axes[0, 0], first.pixels, titles[0])
        _picture(axes[0, 1], second.pixels, titles[1])
        side = len(first.pixels)
        for ax, (name, (map_SS, (row, column))) in zip(axes[0, 2:], stages.items(), strict=True):
            r, c = np.unravel_index(int(map_SS.argmax()), map_SS.shape)
            title = f"{name}, {len(map_SS)} x {len(map_SS)}\npeak {map_SS.max():.2f} (cross)"
            image = _heat(ax, second.pixels, map_SS, title, 1.0, low)
            cell = side / len(map_SS)
            ax.plot(
                (c + 0.5) * cell, (r + 0.5) * cell, "+", color="#00e5ff", markersize=8, markeredgewidth=1.4
            )
            for edge, width in (("black", 1.4), ("white", 0.6)):  # the two colours show on any picture
                frame = Rectangle(
                    (column * cell, row * cell), cell, cell, fill=False, edgecolor=edge, linewidth=width
                )
                axes[0, 0].add_patch(frame)
        axes[0, 0].plot(*at, "+", color="#00e5ff", markersize=9, markeredgewidth=1.6)
        _bar(figure, image, list(axes[0, 2:]), "cosine similarity")
    return figure


def heat_maps(
    rows: Sequence[tuple[Picture, str, Sequence[tuple[str, np.ndarray]], Sequence[tuple[str, np.ndarray]]]],
) -> Figure:
    """Draw one row per picture: (picture, its title, attention maps, class heat maps), each map with a title.

    The attention maps of a row share one colour scale. Every class heat map has its own scale, from 0 to its
    largest value, because its height means nothing.
    """
    with matplotlib.rc_context(_RC):
        lines = max(
            title.count("\n") for _, title, pools, heats in rows for title in _titles(title, pools, heats)
        )
        figure, axes = _panels(len(rows), 1 + len(rows[0][2]) + len(rows[0][3]), lines + 1, 2)
        for row, (picture, title, pools, heats) in zip(axes, rows, strict=True):
            _picture(row[0], picture.pixels, title)
            top = max(float(m.max()) for _, m in pools)
            attended, seen = row[1 : 1 + len(pools)], row[1 + len(pools) :]
            for ax, (name, map_SS) in zip(attended, pools, strict=True):
                image = _heat(ax, picture.pixels, map_SS, name, top)
            _bar(figure, image, attended, "attention weight\n(all cells: 1)")
            for ax, (name, map_SS) in zip(seen, heats, strict=True):
                image = _heat(ax, picture.pixels, map_SS / (float(map_SS.max()) or 1.0), name, 1.0)
            _bar(figure, image, seen, "evidence for the class\n(largest of a map: 1)")
    return figure


def _titles(
    title: str, pools: Sequence[tuple[str, np.ndarray]], heats: Sequence[tuple[str, np.ndarray]]
) -> list[str]:
    return [title, *(name for name, _ in pools), *(name for name, _ in heats)]


def part_values(picture: Picture, title: str, values: Shapley, models: Sequence[str], words: str) -> Figure:
    """Draw the picture, its parts coloured by their Shapley value under each model, and the values as bars.

    ``words``: what the values are shares of, such as ``probability of 'cat'``. Error bars are standard
    errors, if orders were sampled.
    """
    V = len(models)
    with matplotlib.rc_context(_RC):
        bars = max(1.6, min(0.55 * len(picture.masks), 2.8 + 0.13 * len(picture.masks))) + 0.7
        high = _CELL + 0.85 + _LINE * (title.count("\n") + 1)
        figure = Figure(figsize=((1 + V) * _CELL + _BAR + bars, high), layout="constrained")
        axes = figure.subplots(1, 2 + V, width_ratios=[1] * (1 + V) + [bars / _CELL])
        _picture(axes[0], picture.pixels, title)
        top = float(np.abs(values.phi).max()) or 1.0
        for v, name in enumerate(models):
            painted = sum(
                mask * phi for mask, phi in zip(picture.masks.values(), values.phi[:, v], strict=True)
            )
            axes[1 + v].imshow(picture.pixels.mean(-1), cmap="gray", vmin=0, vmax=255)
            image = axes[1 + v].imshow(
                painted, cmap="RdBu_r", vmin=-top, vmax=top, alpha=0.65, interpolation="nearest"
            )
            axes[1 + v].set_title(name)
            axes[1 + v].set_axis_off()
        _bar(figure, image, axes[1 : 1 + V], "Shapley value", 0.55)
        for ax in axes[:-1]:
            ax.set_anchor("S")  # leaves the room above to the titles
        x = np.arange(len(picture.masks))
        for v, name in enumerate(models):
            se = values.se[:, v] if values.orders else None
            tint = (
                _BEFORE if v == 0 else matplotlib.colormaps["viridis"](0.25 + 0.5 * (v - 1) / max(1, V - 1))
            )
            axes[-1].bar(
                x + (v - (V - 1) / 2) * 0.8 / V, values.phi[:, v], 0.8 / V, yerr=se, color=tint, label=name
            )
        axes[-1].axhline(0, color="0.3", linewidth=0.6)
        axes[-1].set_xticks(x, list(picture.masks), rotation=40, ha="right", rotation_mode="anchor")
        axes[-1].set_xlabel("part")
        axes[-1].set_ylabel("\n".join(textwrap.wrap(f"Shapley value: adds to the {words}", 32)))
        # The legend stands above the bars, because inside it would cover some of them.
        axes[-1].legend(frameon=False, fontsize=6.5, ncols=V, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    return figure


def shares(summary: Mapping[str, Mapping[str, Any]], measures: Mapping[str, str], title: str) -> Figure:
    """Draw mean shares before and after by group, with the change and its 95 % interval.

    Each measure has a panel.

    Shares are in percent, changes in points.
    """
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(3.4 * len(measures), 3.0), layout="constrained")
        axes = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
        for ax, (m, words) in zip(axes, measures.items(), strict=True):
            groups = summary[m]
            x = np.arange(len(groups))
            before, after, area = (
                [100 * g[key] for g in groups.values()] for key in ("before", "after", "area")
            )
            ax.bar(x - 0.2, before, 0.38, color=_BEFORE, label="before")
            ax.bar(x + 0.2, after, 0.38, color=_AFTER, label="after")
            ax.plot(
                x,
                area,
                "_",
                color="black",
                markersize=22,
                markeredgewidth=1.2,
                label="share of the image's area",
                linestyle="none",
            )
            for i, g in enumerate(groups.values()):
                c = g["change"]
                # Adding 0.0 turns the minus zeros that rounding leaves into zeros.
                change, low, high = (round(100 * c[k], 1) + 0.0 for k in ("estimate", "low", "high"))
                note = f"{change:+.1f}\n[{low:+.1f}, {high:+.1f}]"
                ax.text(
                    i, max(before[i], after[i], area[i]) + 1.5, note, ha="center", va="bottom", fontsize=6
                )
            ax.set_xticks(x, [name.replace(" ", "\n") for name in groups])
            ax.set_title(f"share of {words}")
            ax.margins(y=0.2)
        axes[0].set_ylabel("mean share (%)")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(
            handles=[*handles, Line2D([], [], linestyle="")],
            labels=[*labels, "above: change in points [95 % interval]"],
            loc="outside lower center",
            ncols=4,
            frameon=False,
            fontsize=7,
            handlelength=3.2,
        )
        figure.suptitle(title, fontsize=8)
    return figure
