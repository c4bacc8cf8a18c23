"""Figures of explanations, as PNG files.

Legend: S grid positions a side, P parts, V models.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bench.errors import BenchError
from bench.explain.picture import Picture
from bench.explain.shapley import Shapley
from bench.files import write_bytes

_CELL = 1.45  # inches, one panel
_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.titlepad": 3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
}
_BEFORE, _AFTER = "#9aa0a6", "#0173b2"


def save(figure: Figure, path: Path, dpi: int = 200) -> None:
    """Write a PNG. Raises BenchError for another suffix."""
    if path.suffix.lower() != ".png":
        raise BenchError(
            f"--out {path}: figures of explanations are PNG files; name it {path.with_suffix('.png')}"
        )
    out = io.BytesIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(out, format="png", dpi=dpi, metadata={"Software": None})
    write_bytes(path, out.getvalue())


def _panels(rows: int, columns: int, titles: float = 0.25) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(columns * _CELL, rows * (_CELL + titles)), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _picture(ax: Axes, pixels: np.ndarray, title: str = "") -> None:
    ax.imshow(pixels, extent=(0, pixels.shape[1], pixels.shape[0], 0))
    ax.set_title(title)
    ax.set_axis_off()


def _heat(
    ax: Axes, pixels: np.ndarray, map_SS: np.ndarray, title: str, top: float | None = None, low: float = 0.0
) -> None:
    """A map over the grey image, drawn as coarse as it is."""
    side = pixels.shape[0]
    ax.imshow(pixels.mean(-1), cmap="gray", vmin=0, vmax=255, extent=(0, side, side, 0))
    ax.imshow(
        map_SS,
        cmap="inferno",
        alpha=0.6,
        vmin=low,
        vmax=top or float(map_SS.max()) or 1.0,
        extent=(0, side, side, 0),
    )
    ax.set_title(title)
    ax.set_axis_off()


def correspondence(
    first: Picture,
    second: Picture,
    at: tuple[float, float],
    stages: Mapping[str, tuple[np.ndarray, tuple[int, int]]],
) -> Figure:
    """The query point in the first image and, for every stage, similarity (S, S) in the second.

    A cross marks its peak.

    ``stages``: name to the map and the query's (row, column); a frame on the first image shows the query's
    cell.
    """
    with matplotlib.rc_context(_RC):
        figure, axes = _panels(1, 2 + len(stages))
        _picture(axes[0, 0], first.pixels, "query")
        _picture(axes[0, 1], second.pixels, "searched")
        side = len(first.pixels)
        for ax, (name, (map_SS, (row, column))) in zip(axes[0, 2:], stages.items(), strict=True):
            r, c = np.unravel_index(int(map_SS.argmax()), map_SS.shape)
            _heat(
                ax,
                second.pixels,
                map_SS,
                f"{name}: {map_SS.max():.2f} at peak",
                1.0,
                float(min(0.0, map_SS.min())),
            )
            cell = side / len(map_SS)
            ax.plot(
                (c + 0.5) * cell, (r + 0.5) * cell, "+", color="#00e5ff", markersize=8, markeredgewidth=1.4
            )
            frame = Rectangle(
                (column * cell, row * cell), cell, cell, fill=False, edgecolor="white", linewidth=0.6
            )
            axes[0, 0].add_patch(frame)
        axes[0, 0].plot(*at, "+", color="#00e5ff", markersize=9, markeredgewidth=1.6)
    return figure


def heat_maps(
    rows: Sequence[tuple[Picture, str, Sequence[tuple[str, np.ndarray]], Sequence[tuple[str, np.ndarray]]]],
) -> Figure:
    """One row a picture: (picture, its title, attention maps, class heat maps), each map with a title.

    Attention maps of a row share one colour scale; every class heat map has its own, as its height means
    nothing.
    """
    with matplotlib.rc_context(_RC):
        figure, axes = _panels(len(rows), 1 + len(rows[0][2]) + len(rows[0][3]), 0.22)
        for row, (picture, title, pools, heats) in zip(axes, rows, strict=True):
            _picture(row[0], picture.pixels, title)
            top = max(float(m.max()) for _, m in pools)
            for ax, (name, map_SS) in zip(row[1:], pools, strict=False):
                _heat(ax, picture.pixels, map_SS, name, top)
            for ax, (name, map_SS) in zip(row[1 + len(pools) :], heats, strict=True):
                _heat(ax, picture.pixels, map_SS, name)
    return figure


def part_values(picture: Picture, title: str, values: Shapley, models: Sequence[str], words: str) -> Figure:
    """The picture, its parts coloured by their Shapley value under each model, and the values as bars."""
    V = len(models)
    with matplotlib.rc_context(_RC):
        bars = max(1.6, min(0.55 * len(picture.masks), 2.8 + 0.13 * len(picture.masks)))
        figure = Figure(figsize=((1 + V) * _CELL + bars + 0.7, _CELL + 0.75), layout="constrained")
        axes = figure.subplots(1, 2 + V, width_ratios=[1] * (1 + V) + [(bars + 0.7) / _CELL])
        _picture(axes[0], picture.pixels, title)
        top = float(np.abs(values.phi).max()) or 1.0
        for v, name in enumerate(models):
            painted = sum(
                mask * phi for mask, phi in zip(picture.masks.values(), values.phi[:, v], strict=True)
            )
            axes[1 + v].imshow(picture.pixels.mean(-1), cmap="gray", vmin=0, vmax=255)
            axes[1 + v].imshow(
                painted, cmap="RdBu_r", vmin=-top, vmax=top, alpha=0.65, interpolation="nearest"
            )
            axes[1 + v].set_title(name)
            axes[1 + v].set_axis_off()
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
        axes[-1].set_xticks(x, list(picture.masks), rotation=40, ha="right")
        axes[-1].set_ylabel(words)
        axes[-1].legend(frameon=False, fontsize=6.5)
    return figure


def shares(summary: Mapping[str, Mapping[str, Any]], measures: Mapping[str, str], title: str) -> Figure:
    """Mean shares before and after by group, a panel a measure; above, the change and its 95 % interval."""
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(3.4 * len(measures), 2.6), layout="constrained")
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
                label="area",
                linestyle="none",
            )
            for i, g in enumerate(groups.values()):
                c = g["change"]
                note = f"{100 * c['estimate']:+.1f}\n[{100 * c['low']:+.1f}, {100 * c['high']:+.1f}]"
                ax.text(
                    i, max(before[i], after[i], area[i]) + 1.5, note, ha="center", va="bottom", fontsize=6
                )
            ax.set_xticks(x, [name.replace(" ", "\n") for name in groups])
            ax.set_title(f"share of {words}, %")
            ax.margins(y=0.2)
        axes[0].legend(frameon=False, fontsize=7)
        figure.suptitle(title, fontsize=8)
    return figure
